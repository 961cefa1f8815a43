"""Tests about the project itself: what it imports, claims, names and leaves out."""

from __future__ import annotations

import gc
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmedge
from mmedge.errors import MissingDependencyError
from mmedge.extras import require
from mmedge.lazy import collector_paused

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LEVELS = ["simulated", "cpu", "built-not-run", "gpu", "jetson"]
# What an evidence level lets one say, weakest first: an engine that was built has not been run on the CPU either.
RANK = {"simulated": 0, "built-not-run": 1, "cpu": 1, "gpu": 2, "jetson": 3}


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("what", ["mmedge", "mmedge; mmedge.Pipeline"])
def test_import_mmedge_loads_nothing_heavy(what: str) -> None:
    heavy = "torch onnx onnxruntime tensorrt tensorrt_rtx cv2 sounddevice av lightning scipy typer rich"
    heavy += " starlette uvicorn websockets paho prometheus_client sqlite3 importlib.metadata"
    code = f"import sys, {what}; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


def loaded(code: str) -> set[str]:
    line = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(line, capture_output=True, text=True, check=True, cwd="/").stdout.split())


def test_to_name_the_pipeline_loads_its_own_file_and_no_package() -> None:
    found = loaded("import mmedge; mmedge.Pipeline")
    own = "address errors lazy pipeline pipeline.pipeline plain version"
    assert {name for name in found if name.startswith("mmedge.")} == {f"mmedge.{name}" for name in own.split()}
    assert not {"numpy", "msgspec"} & found


def test_who_reads_results_of_another_process_does_not_load_what_makes_them() -> None:
    found = loaded("import mmedge.pipeline.opening, mmedge.pipeline.remote, mmedge.pipeline.delivery")
    made = "pipeline.runtime pipeline.inference fusion.graph fusion.load engine interpret preprocess recording.writer"
    made += " capture.base capture.open capture.supervisor capture.simulator calibration replay"
    assert not {f"mmedge.{name}" for name in made.split()} & found


def test_only_addresses_of_http_bring_tls() -> None:
    assert not {"ssl", "http.client"} & loaded("import mmedge.capture.stream_url")


def test_a_run_has_all_imported_before_the_first_fork() -> None:
    code = "from mmedge.pipeline.remote import modules_for\nfrom importlib import import_module\n"
    code += "for name in modules_for({'a': 'udp://127.0.0.1:1', 'b': 'mic://default', 'c': 'push://'}):"
    found = loaded(f"{code} import_module(name)")
    assert {"onnxruntime", "av", "soxr", "mmedge.pipeline.worker", "mmedge.capture.worker"} <= found
    assert {"mmedge.capture.stream_url", "mmedge.capture.microphone"} <= found
    assert not {"sounddevice", "mmedge.capture.v4l2", "mmedge.capture.gstreamer", "mmedge.capture.http"} & found
    line = "from mmedge.pipeline.remote import modules_for\nprint(*modules_for({{'a': '{}', 'b': 'push://'}}))"
    assert "av" in loaded(line.format("clip.mp4"))
    assert "mmedge.capture.worker" not in loaded(line.format("clip.mp4"))
    assert "av" not in loaded(line.format("test://?fps=30"))


@pytest.mark.parametrize("on", [True, False])
def test_imports_leave_the_collector_as_it_was(on: bool) -> None:
    try:
        (gc.enable if on else gc.disable)()
        with collector_paused():
            assert not gc.isenabled()
            with pytest.raises(MissingDependencyError):
                require("none_such", "a test")
            assert not gc.isenabled()
        assert gc.isenabled() is on
        with pytest.raises(MissingDependencyError):
            require("none_such", "a test")
        assert gc.isenabled() is on
    finally:
        gc.enable()


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(mmedge.__all__) == mmedge.__all__
    for name in mmedge.__all__:
        assert getattr(mmedge, name) is not None
    assert callable(mmedge.bench)
    importlib.import_module("mmedge.bench.report")
    assert callable(mmedge.bench)


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == mmedge.__version__
    assert f"## {mmedge.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked("*.py", "*.cpp", "*.hpp")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def test_lines_of_docs_are_short() -> None:
    """At most 140 characters; rows of tables cannot be broken."""
    long = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)}"
        for path in tracked("README.md", "CONTRIBUTING.md", "DATA.md", "docs/*.md", "docs/**/*.md")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 140 and not line.startswith("|")
    ]
    assert long == []


def test_no_machine_paths_and_no_registry_hosts() -> None:
    hosts = "|".join(("py" + "pi", "python" + "hosted", "deb." + "debian", "registry." + "npmjs"))
    pattern = re.compile(rf"(?:^|[^\w.])/(?:root|work|farm)/|(?:{hosts})\.org")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked("*.py", "*.md", "*.toml", "*.txt", "*.cpp", "*.hpp", "Makefile", "*.sh")
        if (match := pattern.search(path.read_text()))
    ]
    assert found == []


def test_readme_links_and_files_exist() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_no_claim_above_its_evidence() -> None:
    claims = tomllib.loads((ROOT / "docs" / "evidence.toml").read_text())["claims"]
    for name, claim in claims.items():
        assert claim["evidence"] in LEVELS, name
        assert (ROOT / claim["shown_by"].partition("::")[0]).exists(), f"{name}: {claim['shown_by']}"
    rows = re.findall(r"<!-- claim: ([a-z0-9-]+) -->[^\n]*?\|\s*`([a-z-]+)`", (ROOT / "README.md").read_text())
    assert len(rows) >= 5, "the README's table of what was verified has lost its marks"
    for name, level in rows:
        assert name in claims, f"README claims '{name}', docs/evidence.toml does not know it"
        assert RANK[level] <= RANK[claims[name]["evidence"]], f"README says {level} for {name}"
    marked = {name for name, _ in rows}
    assert marked == set(claims), "README and docs/evidence.toml list different claims"


@pytest.mark.parametrize(
    "name",
    [
        "demo",
        "doctor",
        "devices",
        "inspect",
        "verify",
        "compile",
        "run",
        "record",
        "replay",
        "service",
        "health",
        "bench",
        "calibrate",
        "train",
        "export",
        "compare",
        "view",
    ],
)
def test_every_command_has_help(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", "mmedge", name, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--json" in done.stdout


def test_the_top_folder_holds_the_project_alone() -> None:
    loose = {path.name for path in tracked("*") if path.parent == ROOT}
    texts = {"CHANGELOG.md", "CONTRIBUTING.md", "DATA.md", "LICENSE", "README.md"}
    build = {"CMakeLists.txt", "Makefile", "constraints.txt", "pyproject.toml"}
    assert loose == texts | build | {".clang-format", ".gitignore"}
