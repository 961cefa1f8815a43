"""Commands and Python of the pages: every option exists; what needs nothing that may be missing is run.

A block that needs more than this machine is sure to have is marked by a line above it: ``<!-- needs: a camera -->``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import onnx
import pytest

import mmedge
from mmedge.cli import COMMANDS, app_command

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "DATA.md"])
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
# What a block may need that can be looked for; anything else is not there.
FOUND = {
    "jq": lambda: shutil.which("jq") is not None,
    "supervision": lambda: find_spec("supervision") is not None,
    "trackers": lambda: find_spec("trackers") is not None,
}
_BLOCK = re.compile(
    r"(?:^<!-- needs: (?P<needs>[^\n]*) -->\n)?^```(?P<kind>bash|python)\n(?P<text>.*?)^```$", re.M | re.S
)
# Of a usage form, `[--fps N]` and `A|B` show what there is; both are read as if it was typed.
_OPTIONAL = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]")


class Block(NamedTuple):
    kind: str
    text: str
    needs: str | None

    @property
    def runs(self) -> bool:
        needs = [] if self.needs is None else self.needs.split(", ")
        return all(need in FOUND and FOUND[need]() for need in needs)


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text())
    return [Block(match["kind"], match["text"], match["needs"]) for match in found]


def command_lines(page: Path) -> Iterator[str]:
    """Yield what the page shows of the command line: in blocks, indented, and within a sentence."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"^```(?:bash|console|sh|)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from (line for line in block.splitlines() if re.match(r"(\$ |sudo \S*)?mmedge ", line))
    yield from re.findall(r"^    (mmedge .*)$", text, re.MULTILINE)
    yield from re.findall(r"`(mmedge [^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def arguments_of(line: str) -> list[str]:
    """Return the words of the first command of a line."""
    line = re.sub(r"\s#.*", "", re.sub(r"^\$ |^sudo ", "", line))
    while (plain := _OPTIONAL.sub(r"\1", line)) != line:
        line = plain
    lexer = shlex.shlex(re.sub(r"(\S) \| (?=-)", r"\1 ", line), posix=True, punctuation_chars="|;<>&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|;<>&"):
            break
        if word not in ("...", "…"):
            words.append(word)
    return words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_that_a_page_shows_exist(page: Path) -> None:
    wrong: list[str] = []
    for line in command_lines(page):
        words = arguments_of(line)
        words = words[next((n for n, word in enumerate(words) if word not in ("-v", "--verbose")), 0) :]
        if not words or words[0] in ("COMMAND", "NAME", "--install-completion", "--help", "--version"):
            continue
        if words[0] not in COMMANDS:
            wrong.append(f"{line}: no such command")
            continue
        known = {option for part in app_command(words[0]).params for option in (*part.opts, *part.secondary_opts)}
        extra = words.index("--") if "--" in words else len(words)
        wrong += [
            f"{line}: {word}"
            for word in words[1:extra]
            if word.startswith("--") and word.partition("=")[0] not in known | {"--help", "--verbose"}
        ]
    assert wrong == []


def test_the_search_finds_commands() -> None:
    assert sum(1 for page in PAGES for _ in command_lines(page)) > 150
    assert arguments_of("mmedge bench B [--fps 60] [--save F | --json] | head -n 1  # a comment") == [
        *("bench", "B", "--fps", "60", "--save", "F", "--json")
    ]


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_every_command_of_the_guide_is_one_that_is_read_whole(page: Path) -> None:
    """Also where it cannot be run: the parser of the command line takes it."""
    for block in blocks(page):
        for line in block.text.replace("\\\n", " ").splitlines() if block.kind == "bash" else ():
            words = arguments_of(line) if re.match(r"(sudo \S*)?mmedge ", line) else []
            if words:
                try:
                    app_command(words[0]).make_context(f"mmedge {words[0]}", words[1:])
                except click.ClickException as error:
                    pytest.fail(f"{line}: {error.format_message()}")


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the pages start from: the shipped bundle and a clip of its own, two networks and a clip for them."""
    from tests.integration.test_new import clip, detector, level

    folder = tmp_path_factory.mktemp("materials")
    shutil.copy(ASSETS / "digits.mmedge", folder)
    shutil.copy(ASSETS / "clips" / "clean.mp4", folder / "clip.mp4")
    onnx.save(detector(), folder / "yolo.onnx")
    onnx.save(level(), folder / "level.onnx")
    clip(folder / "lamp.mp4")
    return folder


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_the_guide_runs_as_it_stands(page: Path, tmp_path: Path, materials: Path) -> None:
    if page.stem != "start":  # that page gets its own
        shutil.copytree(materials, tmp_path, dirs_exist_ok=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    environment = {name: value for name, value in environment.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    for block in blocks(page):
        if not block.runs:
            continue
        line = ["bash", "-eu", "-o", "pipefail", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*line, block.text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_marks_say_what_is_needed() -> None:
    for page in GUIDE:
        assert page.read_text().count("<!-- needs:") == sum(block.needs is not None for block in blocks(page)), page
