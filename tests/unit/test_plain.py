"""Nothing that others have written steers a terminal, a page or a document."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

import mmedge
from mmedge.cli.output import PrintableFormatter, print_json
from mmedge.console import PlainConsole, styled
from mmedge.errors import BundleError, ConfigError
from mmedge.plain import json_text, printable, unsafe
from tests.hostile import golden, network, pack
from tests.tiny import MANIFEST, manifest, members

ROOT = Path(__file__).parents[2]
KEPT = "\u200c\u200d"
STEERS = [
    *map(chr, (*range(9), *range(11, 32), *range(127, 160))),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff",
]
PIECES = st.one_of(
    st.sampled_from([*STEERS, "[red]", "[/]", ":smile:", "\u200b", "\U000e0041"]), st.characters(exclude_categories=())
)
NASTY = st.lists(PIECES, max_size=12).map("".join)


def harmful(text: str) -> set[str]:
    """Return the characters of a text that no output may have."""
    wild = {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"}
    return (
        wild
        | {
            c
            for c in text
            if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        }
        | (set(text) & set(STEERS))
    )


@given(NASTY)
def test_what_is_printable_steers_nothing_and_stays_what_it_is(text: str) -> None:
    shown = printable(text)
    assert not harmful(shown)
    assert printable(shown) == shown
    assert (unsafe(text, lines=True) is None) == (shown == text)


@given(st.dictionaries(NASTY, NASTY, max_size=3))
def test_a_document_says_the_same_with_escapes(document: dict[str, str]) -> None:
    text = json_text(json.dumps(document, ensure_ascii=False))
    assert json.loads(text) == document
    assert not harmful(text)


@given(NASTY)
def test_whatever_is_printed_is_text(text: str) -> None:
    console = PlainConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    tree = Tree(Text(text))
    tree.add(Text(text))
    for what in (text, Text(text), table, tree, styled((text, "bold"), text)):
        console.print(what)
        console.print(what, soft_wrap=True)
    with Progress(TextColumn("{task.description}", markup=False), console=console, transient=True) as progress:
        progress.add_task(text)
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\r", "", console.file.getvalue())  # what rich itself moves and colours
    assert not harmful(shown)


def test_brackets_are_no_colours() -> None:
    console = PlainConsole(file=io.StringIO(), force_terminal=True, width=100)
    console.print("[red]not red[/] :smile:", highlight=False)
    assert console.file.getvalue() == "[red]not red[/] :smile:\n"  # type: ignore[attr-defined]


@given(NASTY)
def test_errors_and_log_lines_are_text(text: str) -> None:
    error = ConfigError(text, where=text, fix=text)
    assert not harmful(str(error))
    assert not harmful("".join(map(str, error.to_dict().values())))
    record = logging.LogRecord(text, logging.WARNING, "f", 1, "%s", (text,), None)
    assert not harmful(PrintableFormatter("%(name)s %(message)s").format(record))


@given(st.sampled_from(STEERS), st.sampled_from(["name", "licence", "task", "stage", "unit", "label", "tensor"]))
def test_names_and_labels_that_steer_are_refused(
    tmp_path_factory: pytest.TempPathFactory, sign: str, field: str
) -> None:
    folder, bad = tmp_path_factory.mktemp("b"), f"a{sign}b"
    net = network([])
    files = {"s.onnx": net, "s.npz": golden(), "l.txt": f"x\n{bad if field == 'label' else 'y'}\n".encode()}
    changes: dict[str, object] = {}
    task = {"kind": "classification", "output": "s.y", "labels": "l.txt"}
    stage = {"inputs": {"x": "x"}, "outputs": {"y": [1, 2]}}
    if field in ("name", "licence"):
        changes = {field: bad}
    elif field == "task":
        changes = {"tasks": {bad: task}}
    elif field == "stage":
        changes = {"stages": {"s": stage, bad: {**stage, "callable": "a:b"}}}
    elif field == "tensor":
        changes = {"stages": {"s": {"inputs": {bad: "x"}, "outputs": {"y": [1, 2]}}}}
    elif field == "unit":
        changes = {"provenance": {"by": bad}}
    with pytest.raises(BundleError) as caught:
        mmedge.load(pack(folder / "a.mmedge", files, **changes))
    assert not harmful(str(caught.value))


def test_words_of_all_languages_are_labels(tmp_path: Path) -> None:
    words = ["می‌خواهم", "नमस्ते", "क्‍ष", "שלום", "مرحبا", "👩‍🔬", "été", "日本語", "a [b]"]
    files = members() | {"labels/scene.txt": "\n".join(words[:2]).encode("utf-8-sig")}
    assert unsafe("".join(words)) is None
    with mmedge.load(
        pack(tmp_path / "t.mmedge", files, **{k: v for k, v in manifest(files).items() if k != "files"})
    ) as bundle:
        assert bundle.labels("scene") == tuple(words[:2])
    assert MANIFEST["name"] == "tiny"


def test_a_document_of_a_command_is_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json({"device": "mic\u202e\x9b\x7f\U000e0041\ud800"})
    out = capfdbinary.readouterr().out.decode("ascii")
    assert json.loads(out) == {"device": "mic\u202e\x9b\x7f\U000e0041\ud800"}


def test_there_is_one_console() -> None:
    """Whatever is printed comes by ``mmedge.console`` or ``printable``; nothing is markup."""
    allowed = {
        "mmedge/console.py": r"Console\(",
        "mmedge/cli/__init__.py": r"print\((printable|line|scrub\(said|f\"error: \{printable)|typer\.echo\(f\"mmedge",
        "mmedge/cli/service.py": r"sys\.stdout\.write\(unit\.text\)",  # a file, as it is
        "mmedge/capture/gst_launch.py": r"sys\.stderr\.write\(",  # to its parent, which logs it
        "mmedge/engine/build_child.py": r"sys\.stderr\.write\(",  # into the log of a build
    }
    printing = r"(?<![\w.])(?<!def )print\(|(?<!\w)Console\(|std(?:out|err)(?:__)?\.write\(|typer\.s?echo\("
    markup = r"rich\.markup|rich\.panel|from_markup|from_ansi|markup=True|\[/\w*\][\"']|TextColumn\((?!.*markup=False)"
    pattern = re.compile(f"{printing}|{markup}")
    found = []
    for room in ("mmedge", "export"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            code = re.sub(r'""".*?"""', lambda text: "\n" * text[0].count("\n"), path.read_text(), flags=re.DOTALL)
            for number, line in enumerate(code.splitlines(), 1):
                if pattern.search(line.partition("  #")[0]) and not re.search(allowed.get(name, r"(?!)"), line):
                    found.append(f"{name}:{number}: {line.strip()}")
    assert found == []
