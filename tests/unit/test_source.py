"""Where a tensor comes from: what is written is read again, and nothing else is taken for a source."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from mmedge.bundle.manifest import Stage, Task
from mmedge.bundle.source import (
    Age,
    Constant,
    Output,
    Presence,
    Seat,
    Source,
    State,
    parse_output,
    parse_source,
)

NAMES = st.text().filter(lambda name: "." not in name and not name.startswith("@"))
SOURCES = st.one_of(
    st.builds(Seat, NAMES),
    st.builds(Output, NAMES, st.text()),
    st.builds(State, st.text()),
    st.builds(Constant, st.floats(allow_nan=False, allow_infinity=False)),
    st.just(Presence()),
    st.just(Age()),
)
BAD = {
    "@": "unknown tensor '@'",
    "@state": "unknown tensor '@state'",
    "@const": "unknown tensor '@const'",
    "@presents": "unknown tensor '@presents'",
    "@net.y": "unknown tensor '@net.y'",
    "@const:x": "'@const:x' is not a finite number",
    "@const:": "'@const:' is not a finite number",
    "@const:nan": "'@const:nan' is not a finite number",
    "@const:1e400": "'@const:1e400' is not a finite number",
}


@given(SOURCES)
def test_what_is_written_is_read_again(source: Source) -> None:
    assert parse_source(str(source)) == source
    assert hash(parse_source(str(source))) == hash(source)


@given(st.text() | st.text().map("@const:{}".format) | st.text().map("@state:{}".format))
def test_any_text_is_a_source_or_a_value_error(text: str) -> None:
    try:
        source = parse_source(text)
    except ValueError:
        assert text.startswith("@")
        return
    assert parse_source(str(source)) == source
    if isinstance(source, Constant):
        assert math.isfinite(source.number)
    else:
        assert str(source) == text


@pytest.mark.parametrize("text", BAD)
def test_what_it_is_not_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(BAD[text])}$"):
        parse_source(text)


@pytest.mark.parametrize("text", ["net", "@present", "@state:y", "@const:1", "@x.y", ""])
def test_a_task_reads_an_output(text: str) -> None:
    assert parse_output("net.y.0") == Output("net", "y.0")
    with pytest.raises(ValueError, match="unknown tensor"):
        parse_output(text)


def test_a_stage_and_a_task_tell_their_sources() -> None:
    inputs = {"x": "audio", "h": "@state:h.next", "e": "eye.y", "p": "@present", "a": "@age_ms", "k": "@const:3"}
    stage = Stage(inputs=inputs, outputs={"h.next": ("batch", 4)})
    want = [Seat("audio"), State("h.next"), Output("eye", "y"), Presence(), Age(), Constant(3)]
    assert list(stage.sources.values()) == want
    assert (stage.states, stage.links) == ({"h": "h.next"}, {"e": Output("eye", "y")})
    assert Task(kind="classification", output="eye.y", labels="").tensor == Output("eye", "y")


def test_no_other_code_takes_a_source_apart() -> None:
    own = Path(mmedge.__file__).parent
    apart = re.compile(r'startswith\(\(?"@|removeprefix\("@|== "@|in \("@|output\.partition|source\.partition')
    found = [
        f"{path.name}: {line.strip()}"
        for root in (own, own.parent / "export")
        for path in root.rglob("*.py")
        # Keys of health() that are no inputs, and abstract sockets, begin with it, too.
        if path.relative_to(root).as_posix() not in ("bundle/source.py", "sinks/metrics.py", "service/notify.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if apart.search(line)
    ]
    # The one rule about names: none begins as a source of another kind does.
    assert found == ['references.py: if not name or "." in name or name.startswith("@"):']
