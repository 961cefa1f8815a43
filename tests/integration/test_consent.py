"""No code of a bundle runs without consent: not by any command, from any place, under any name."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.errors import BundleError, ConfigError
from mmedge.fusion.consent import Consent, project_text, remember
from mmedge.fusion.rules import joint_of_two
from tests.conftest import WriteClip
from tests.hostile import RULE, calling, pack

pytestmark = pytest.mark.parallel

X = {"x": "push://"}


def command(folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mmedge", *map(str, arguments)]
    config = {"XDG_CONFIG_HOME": str(folder / "config")}
    return subprocess.run(
        line, cwd=folder, env={**os.environ, **config, **env}, capture_output=True, text=True, timeout=120, check=False
    )


def answering(path: Path, target: str) -> Path:
    """Write a bundle that says something about a picture, by calling ``target``."""
    seat = {"modality": "image", "size": [2, 1], "color": "gray", "mean": [0.0], "std": [1.0], "frame": [8, 8]}
    stages = {"s": {"inputs": {"x": "image"}, "outputs": {"y": [1, 2]}, "callable": target}}
    changes: dict[str, Any] = {"inputs": {"image": seat}, "stages": stages, "sync": {"trigger": "image"}}
    return pack(path, {"l.txt": b"a\nb\n"}, variants=[], **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a stranger's archive leaves: a bundle, a module, and files that call for trust or are imported by chance."""
    answering(tmp_path / "evil.mmedge", "helper_rule:f")
    answering(tmp_path / "venvmain.mmedge", "venv.__main__:x")
    (tmp_path / "helper_rule.py").write_text(RULE)
    (tmp_path / "mmedge.toml").write_text(project_text(["helper_rule", "venv.__main__"]))
    for name in ("onnxruntime", "av", "tokenizers", "sitecustomize_of_mine"):
        (tmp_path / f"{name}.py").write_text(RULE)
    return tmp_path


@pytest.mark.parametrize("name", ["evil", "venvmain"])
@pytest.mark.parametrize("what", ["verify", "verify --json", "inspect", "run", "bench", "python"])
def test_nothing_is_imported(folder: Path, write_clip: WriteClip, name: str, what: str) -> None:
    bundle, before = folder / f"{name}.mmedge", {*folder.iterdir(), folder / "clip.nut"}
    target = "helper_rule:f" if name == "evil" else "venv.__main__:x"
    clip = write_clip(size=(64, 64))
    lines = {"run": ["run", bundle, "--image", clip], "bench": ["bench", bundle, "--duration", 1]}
    if what == "python":
        code = f"import mmedge; list(mmedge.Pipeline({str(bundle)!r}, {{'image': {str(clip)!r}}}))"
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    else:
        done = command(folder, *lines.get(what, [*what.split(), bundle]))
    assert {*folder.iterdir()} - {folder / "__pycache__"} == before
    if what == "verify --json":
        document = json.loads(done.stdout)
        assert (done.returncode, document["ok"], document["needs_code"]) == (1, False, {"s": target})
    elif what == "inspect":
        assert done.returncode == 0
        assert target.partition(".")[0] in done.stdout
    else:
        assert f"needs code '{target}'" in done.stderr or f"needs code {target}" in done.stdout
        assert done.returncode == {"verify": 1, "python": 1}.get(what, 2)


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": os.pathsep}, {"PYTHONPATH": "/nowhere:"}])
def test_the_working_directory_is_never_searched(folder: Path, write_clip: WriteClip, env: dict[str, str]) -> None:
    clip = write_clip(size=(64, 64))
    arguments = ("run", "evil.mmedge", "--image", clip, "--latency", "offline", "--allow-callable", "helper_rule")
    done = command(folder, *arguments, **env)
    assert done.returncode == 2
    assert "cannot import 'helper_rule:f'" in done.stderr
    assert not (folder / "EXECUTED").exists()
    code = "import mmedge; mmedge.Pipeline('evil.mmedge', {'image': 'clip.nut'}, allow=['helper_rule']).start()"
    for isolation in ("thread", "process"):
        line = code.replace("allow=", f"isolation='{isolation}', allow=")
        done = subprocess.run([sys.executable, "-c", line], cwd=folder, capture_output=True, text=True, check=False)
        assert "ConfigError" in done.stderr
        assert not (folder / "EXECUTED").exists()


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("how", ["PYTHONPATH", "project", "remembered"])
def test_what_the_user_allows_runs(folder: Path, write_clip: WriteClip, how: str, isolation: str) -> None:
    (folder / "onnxruntime.py").unlink()
    (folder / "av.py").unlink()
    source = write_clip(size=(64, 64)) if isolation == "thread" else "test://?fps=30"
    arguments = ["run", "evil.mmedge", "--image", source, "--duration", "3", "--json"]
    env = {"PYTHONPATH": str(folder)} if how == "PYTHONPATH" else {}
    if how == "remembered":
        code = f"from pathlib import Path; from mmedge.fusion.consent import remember; remember(Path({str(folder)!r}))"
        config = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
        subprocess.run([sys.executable, "-c", code], env=config, check=True)
    else:
        arguments += ["--allow-callable", "helper_rule" if env else "mmedge.toml"]
    done = command(folder, *arguments, **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"status":"ok"') >= 1
    assert (folder / "EXECUTED").exists()


@pytest.mark.parametrize(
    "target",
    [
        "mmedge.fusion.rules:np.load",
        "mmedge.fusion.rules:__builtins__",
        "mmedge.fusion.rules:",
        "mmedge.fusion.rules",
        ":f",
        "os:system:x",
        "../os:system",
        "os :system",
    ],
)
def test_what_is_no_name_of_a_function_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(BundleError, match="not the name of a function"):
        mmedge.load(calling(tmp_path / "a.mmedge", target))


@pytest.mark.parametrize(
    "target", ["mmedge.fusion.rules:np", "mmedge.fusion.faces:nms", "os:system", "mmedge.files:replacing", "tests:x"]
)
def test_only_what_is_listed_runs_by_itself(tmp_path: Path, target: str) -> None:
    with pytest.raises(ConfigError, match="needs code"):
        mmedge.Pipeline(calling(tmp_path / "a.mmedge", target), X)


def test_what_a_module_has_from_elsewhere_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "allowed_rule.py").write_text("from os import system\nfrom mmedge.fusion.rules import joint_of_two\n")
    monkeypatch.syspath_prepend(tmp_path)
    pipe = mmedge.Pipeline(calling(tmp_path / "a.mmedge", "allowed_rule:system"), X, allow=["allowed_rule"])
    with pytest.raises(ConfigError, match="is not of 'allowed_rule' but of 'posix'"):
        pipe.start()
    assert Consent(["allowed_rule"]).owns(joint_of_two, "allowed_rule")


@pytest.mark.parametrize("entry", ["rules:join", "a/b", "", "a..b", "-"])
def test_what_is_no_module_cannot_be_allowed(entry: str) -> None:
    with pytest.raises(ConfigError, match="is not a module"):
        Consent([entry])


def test_a_list_that_no_descriptor_is_left_for_is_not_called_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    remember(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Consent(bundle=tmp_path / "a.mmedge").covers("my_rule:f")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_project_that_everybody_may_change_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    home = tmp_path / "kiosk"
    home.mkdir()
    (home / "mmedge.toml").write_text(project_text(["my_rule"]))
    bundle = home / "a.mmedge"
    assert not Consent(bundle=bundle).covers("my_rule:f")
    remember(home)
    assert Consent(bundle=bundle).covers("my_rule:f")
    assert not Consent(bundle=tmp_path / "a.mmedge").covers("my_rule:f")
    with pytest.raises(ConfigError) as caught:  # its bundle lies elsewhere, and the user is, too
        Consent(bundle=tmp_path / "a.mmedge").check("my_rule:f", "s")
    assert f"--allow-callable {home / 'mmedge.toml'} " in (caught.value.fix or "")
    (home / "mmedge.toml").chmod(0o666)
    with pytest.raises(ConfigError, match="everybody"):
        Consent(bundle=bundle)
    (home / "mmedge.toml").write_text("[callables]\nallow = ['a b']\n")
    (home / "mmedge.toml").chmod(0o644)
    with pytest.raises(ConfigError, match="not a project's file"):
        Consent(bundle=bundle)
