"""The Dockerfiles as text: two stages at least, no root, nothing written but in volumes, a health check that exists."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mmedge.cli import app_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
FILES = sorted(FOLDER.glob("*Dockerfile"))
COMPOSE = json.loads((FOLDER / "compose.json").read_text())["services"]["mmedge"]
_INSTRUCTIONS = "FROM ARG ADD RUN COPY ENV VOLUME WORKDIR USER HEALTHCHECK ENTRYPOINT CMD"


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def parsed(words: list[str]) -> None:
    """Raise what the command line says to these words; nothing runs."""
    app_command(words[0]).make_context(f"mmedge {words[0]}", list(words[1:]))


def test_there_are_images_for_x86_and_for_a_jetson() -> None:
    assert [path.name for path in FILES] == ["Dockerfile", "jetson.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_built_with_is_left_behind_and_nobody_is_root(path: Path) -> None:
    lines = instructions(path)
    assert {name for name, _ in lines} <= set(_INSTRUCTIONS.split())
    last = [k for k, (name, _) in enumerate(lines) if name == "FROM"][-1]
    final = lines[last:]
    assert sum(name == "FROM" for name, _ in lines) >= 2
    assert not any(word in text for name, text in final if name == "RUN" for word in ("g++", "pip", "python3-dev"))
    assert ("COPY", "--from=build /opt/mmedge /opt/mmedge") in final
    users = [text for name, text in final if name == "USER"]
    assert users
    assert int(users[-1]) > 0
    assert [name for name, _ in final].index("USER") > max(k for k, (name, _) in enumerate(final) if name == "RUN")
    for name, text in lines:
        assert not (name == "FROM" and text.endswith(":latest"))
        if name == "RUN" and "apt-get install" in text:
            assert "--no-install-recommends" in text
            assert "rm -rf /var/lib/apt/lists/*" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_a_run_writes_lies_in_a_volume_and_the_health_check_asks_the_run(path: Path) -> None:
    found: dict[str, str] = dict(instructions(path))
    environment = dict(part.split("=", 1) for part in found["ENV"].split())
    for name in ("HOME", "MMEDGE_CACHE"):
        assert environment[name].startswith(found["VOLUME"])
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    check: Any = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
    assert check[:2] == ["mmedge", "health"]
    parsed(check[1:])
    timeout_s = int(re.search(r"--timeout=(\d+)s", found["HEALTHCHECK"])[1])  # type: ignore[index]
    assert float(check[check.index("--within") + 1]) < timeout_s
    assert check[2] in COMPOSE["command"]
    assert json.loads(found["ENTRYPOINT"]) == ["mmedge"]
    parsed(json.loads(found["CMD"]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_installed_exists(path: Path) -> None:
    named = re.findall(r"EXTRAS=([\w,-]+)", path.read_text())
    assert named
    assert {extra for each in named for extra in each.split(",")} <= EXTRAS
    ignored = path.with_name(f"{path.name}.dockerignore").read_text().split()
    assert {".git", ".venv", "build", "tests"} <= set(ignored)  # neither large nor secret
    assert not {"mmedge", "native", "export", "recipes"} & set(ignored)


def test_a_container_may_write_to_its_volume_and_to_memory_alone() -> None:
    assert COMPOSE["read_only"] is True
    assert COMPOSE["cap_drop"] == ["ALL"]
    assert COMPOSE["security_opt"] == ["no-new-privileges:true"]
    assert any(place.startswith("/run/mmedge:uid=10001") for place in COMPOSE["tmpfs"])
    assert "privileged" not in COMPOSE
    parsed(COMPOSE["command"])
    assert (FOLDER / COMPOSE["build"]["dockerfile"].removeprefix("docker/")).exists()


def test_every_extra_that_is_named_exists() -> None:
    """In errors, docs and scripts: pip only warns of one that does not."""
    files = [
        path
        for pattern in ("mmedge/**/*.py", "export/**/*.py", "docs/**/*.md", "scripts/*", "*.md", "Makefile")
        for path in ROOT.glob(pattern)
        if path.name != "CHANGELOG.md"
    ]
    named = {
        (path.name, extra)
        for path in files
        for found in re.findall(r"mmedge\[([a-z,-]+)\]", path.read_text())
        for extra in found.split(",")
    }
    assert len(named) > 20
    assert {(name, extra) for name, extra in named if extra not in EXTRAS} == set()
