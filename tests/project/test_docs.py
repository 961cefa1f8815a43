"""Commands on the pages: every command and every option exists, and each stands in a block that is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mmedge.cli import COMMANDS, app_command
from tests.doc_pages import PAGES, ROOT, blocks

# Of a usage form, `[--fps N]` and `A|B` show what there is; both are read as if it was typed.
_OPTIONAL = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]")


def command_lines(page: Path) -> Iterator[str]:
    """Yield what the page shows of the command line: in blocks, and within a sentence."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"^```(?:bash|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from (line for line in block.splitlines() if re.match(r"(sudo \S*)?mmedge ", line))
    yield from re.findall(r"`(mmedge [^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def arguments_of(line: str) -> list[str]:
    """Return the words of the first command of a line."""
    line = re.sub(r"\s#.*", "", re.sub(r"^sudo ", "", line))
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_block_is_one_that_is_read_whole(page: Path) -> None:
    """Also where it cannot be run: the parser of the command line takes it."""
    for block in blocks(page):
        for line in block.commands if block.kind == "bash" else ():
            words = arguments_of(line) if re.match(r"(sudo \S*)?mmedge ", line) else []
            if words:
                try:
                    app_command(words[0]).make_context(f"mmedge {words[0]}", words[1:])
                except click.ClickException as error:
                    pytest.fail(f"{line}: {error.format_message()}")


def test_marks_say_what_is_needed() -> None:
    for page in PAGES:
        marks = re.findall(r"^<!-- needs:", page.read_text(), re.MULTILINE)
        assert len(marks) == sum(block.needs is not None for block in blocks(page)), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_command_to_type_stands_in_a_block_that_is_run(page: Path) -> None:
    """Not indented, nor in a block without a kind or of another; a form, with [--options] or NAMES, is text."""
    typed = re.compile(r"^ *(?:\$ )?(?:sudo )?(?:mmedge|make|pip|python3?) .*", re.MULTILINE)
    text = page.read_text()
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    wrong = re.findall(r"^    (?:mmedge|make|pip|python3?) .*", outside, re.MULTILINE)
    for kind, block in re.findall(r"^```(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if kind not in ("bash", "python", "{mmedge-commands}"):
            wrong += [
                line for line in typed.findall(block) if kind != "text" or not re.search(r"\b[A-Z]{2,}\b|\[", line)
            ]
    assert wrong == []
