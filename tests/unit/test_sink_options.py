"""What is typed for a sink, and which results it then gets."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.errors import ConfigError
from mmedge.sinks import Event
from mmedge.sinks.options import own_options, read_options, read_typed
from mmedge.sinks.selection import Selection, Selector
from mmedge.types import Box, Result, TaskResult
from tests.results import STEP_NS, made


def factory(target: str, *, keep: Annotated[int, msgspec.Meta(ge=0)] = 5, mode: Literal["a", "b"] = "a") -> object:
    return target, keep, mode


@pytest.mark.parametrize(
    ("text", "name", "target", "options"),
    [
        ("console", "console", "", {}),
        ("console?on=change", "console", "", {"on": "change"}),
        ("jsonl:a:b.jsonl", "jsonl", "a:b.jsonl", {}),
        ("jsonl:what?.jsonl", "jsonl", "what?.jsonl", {}),
        ("jsonl:a?b?keep=1", "jsonl", "a?b", {"keep": "1"}),
        ("mqtt://h:1883/a/b?events=change&tasks=x%2Cy", "mqtt", "//h:1883/a/b", {"on": "change", "tasks": "x,y"}),
        ("metrics:[::1]:9464", "metrics", "[::1]:9464", {}),
    ],
)
def test_what_is_typed(text: str, name: str, target: str, options: dict[str, str]) -> None:
    typed = read_typed(text)
    assert (typed.name, typed.target, typed.options) == (name, target, options)


def test_options_of_a_sink_are_its_keywords() -> None:
    own = own_options(factory)
    assert own_options(partial(factory, keep=1)).keys() == own.keys() - {"keep"}  # what is bound is no option
    selection, values = read_options(read_typed("x:y?keep=3&mode=b&on=event&tasks=digit"), own, ["digit"])
    assert selection == Selection(on="event", tasks=("digit",))
    assert values == {"keep": 3, "mode": "b"}
    assert own_options(print) == {"sep": str, "end": str, "file": str, "flush": str} or own_options(print) == {}
    with pytest.raises(ConfigError, match="no task 'digits'") as error:
        read_options(read_typed("x:y?tasks=digits"), own, ["digit", "agree"])
    assert "did you mean 'digit'?" in str(error.value.fix)


def test_a_secret_in_a_query_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="unknown option") as error:
        read_options(read_typed("mqtt://me:hush-hush?pw=x@broker/a"), {}, None)
    assert "hush-hush" not in str(error.value)


LABELS = st.sampled_from([None, "a", "b", "c"])


@given(st.lists(LABELS, max_size=40))
def test_events_tell_every_change_and_how_long_it_had_lasted(labels: list[str | None]) -> None:
    """From the events alone, the label of every trigger and every duration can be told."""
    select = Selector(Selection(on="event"))
    events = {n: select(made(n, task=label)) for n, label in enumerate(labels)}
    said: str | None = None
    since: int | None = None
    for n, label in enumerate(labels):
        for event in events[n]:
            assert isinstance(event, Event)
            assert (event.before, event.t_ns, event.unix_ns) == (said, n * STEP_NS, n * STEP_NS + 1_000)
            assert event.before_ms == (None if since is None else (n - since) * STEP_NS / 1e6)
            assert event.label != said
            said, since = event.label, n
        assert said == label


@given(st.lists(st.tuples(LABELS, LABELS), max_size=40))
def test_changes_are_the_results_that_say_something_else(pairs: list[tuple[str | None, str | None]]) -> None:
    select = Selector(Selection(on="change"))
    passed = [bool(select(made(n, x=x, y=y))) for n, (x, y) in enumerate(pairs)]
    assert passed == [n == 0 or pairs[n] != pairs[n - 1] for n in range(len(pairs))]


def test_scores_and_tasks_choose() -> None:
    select = Selector(Selection(tasks=("x", "m"), min_score=0.5))
    low, high = TaskResult(label="a", score=0.4), TaskResult(label="a", score=0.5)
    number = TaskResult(label=None, score=None, value=3.0, unit="m")
    assert select(made(0, x=low, y=high)) == []
    (result,) = select(made(1, x=low, m=number, y=high))
    assert list(result.tasks) == ["m"]
    (result,) = select(made(2, x=high, y=high))
    assert list(result.tasks) == ["x"]
    assert isinstance(result, Result)
    assert result.age_ns(2**62) > 0  # it still knows from when it counts


def test_an_event_of_a_detector_is_a_change_of_what_is_there() -> None:
    select = Selector(Selection(on="event"))

    def seen(*labels: str) -> TaskResult:
        boxes = tuple(Box(label=label, score=0.9, x1=0, y1=0, x2=1, y2=1) for label in labels)
        return TaskResult(label=labels[0] if labels else None, score=0.9, boxes=boxes)

    told = [select(made(n, x=task)) for n, task in enumerate((seen("cat"), seen("cat"), seen("cat", "dog"), seen()))]
    lines = [[json.loads(event.to_json()) for event in events] for events in told]
    assert [[line["labels"] for line in each] for each in lines] == [[["cat"]], [], [["cat", "dog"]], [[]]]
    number = TaskResult(label=None, score=None, value=3.0)
    assert select(made(9, z=number)) == []
