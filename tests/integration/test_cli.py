"""The command line: results on stdout, errors with a fix, the right exit code, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mmedge.cli import run
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.parallel


class InProcess:
    """Runs a command line in this process: the same code as the command, without its start-up."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        code = run([str(a) for a in arguments])
        out, err = self._capfd.readouterr()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, code, out, err)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(capfd)


def mmedge(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "mmedge", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, env=env)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.mmedge")


def test_run_prints_json_lines_and_nothing_else(bundle: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    done = mmedge("run", bundle, "--image", write_clip(size=(64, 64)), "--json", "--latency", "offline")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 25
    assert {line["schema"] for line in lines} == {"mmedge.result/1"}


def test_input_names_work_as_modalities_do(bundle: Path, write_clip, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "o.jsonl"
    clip = write_clip(size=(64, 64))
    done = mmedge("run", bundle, "--input", f"image={clip}", "--sink", f"jsonl:{out}", "--latency", "offline")
    assert done.returncode == 0
    assert done.stdout == ""
    assert len(out.read_text().splitlines()) == 25
    assert "25 results of 25 triggers" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "none.mmedge", "--image", "0"], 4, "bundle not found"),
        (["run", "BUNDLE"], 2, "no source was given"),
        (["run", "BUNDLE", "--image", "none.mp4"], 2, "none.mp4"),
        (["run", "BUNDLE", "--text", "text://stdin"], 2, "0 text inputs"),
        (["run", "BUNDLE", "--input", "nose=0"], 2, "no input 'nose'"),
        (["run", "BUNDLE", "--input", "image"], 2, "not NAME=URI"),
        (["run", "BUNDLE", "--image", "0", "--input", "image=0"], 2, "given twice"),
        (["run", "BUNDLE", "--image", "v4l2:///dev/video99"], 3, "/dev/video99"),
        (["run", "BUNDLE", "--image", "csi://0"], 3, ""),
        (["run", "BUNDLE", "--audio", "mic://no-such-microphone"], 3, "no-such-microphone"),
        (["run", "BUNDLE", "--image", "ftp://x"], 2, "ftp"),
        (["run", "BUNDLE", "--image", "0", "--backend", "tensorrt"], 3, "TensorRT cannot run here"),
        (["run", "BUNDLE", "--image", "0", "--precision", "int8"], 2, "no variant"),
        (["run", "BUNDLE", "--image", "0", "--sink", "pigeon:"], 2, "unknown sink"),
        (["run", "BUNDLE", "--image", "0", "--speed", "0"], 2, "speed"),
        (["frobnicate"], 2, "No such command"),
        (["inspect", "none.onnx"], 2, "none.onnx"),
        (["export", "none.toml"], 2, "cannot read the recipe"),
        (["train", "none.toml"], 2, "cannot read the recipe"),
        (["compile", "none.onnx"], 2, "none.onnx"),
    ],
)
def test_bad_input(
    arguments: list[str], code: int, message: str, bundle: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    done = cli(*[str(bundle) if a == "BUNDLE" else a for a in arguments])
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "fix:" in done.stderr or arguments == ["frobnicate"]
    assert done.stdout == ""


@pytest.mark.parametrize("source", ["none.mp4", "v4l2:///dev/video99", "damaged.mp4"])
def test_a_wrong_source_leaves_no_file_of_results(
    source: str, bundle: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    Path("damaged.mp4").write_bytes(b"no media")
    Path("kept.jsonl").touch()
    done = cli("run", bundle, "--image", source, "--sink", "jsonl:made.jsonl", "--sink", "jsonl:kept.jsonl")
    assert done.returncode in (2, 3, 5)
    assert "fix:" in done.stderr
    assert sorted(Path().glob("*.jsonl")) == [Path("kept.jsonl")]


def test_errors_are_json_with_json(bundle: Path) -> None:
    done = mmedge("run", bundle, "--json", "--image", "none.mp4")
    document = json.loads(done.stdout)
    assert document["schema"] == "mmedge.error/1"
    assert document["exit_code"] == done.returncode == 2
    usage = mmedge("run", "--json", "--no-such-option")
    assert usage.returncode == 2
    assert json.loads(usage.stdout)["exit_code"] == 2


def test_a_tampered_bundle_has_code_4(bundle: Path, cli: InProcess) -> None:
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("../x", b"evil")
    for command in (["verify"], ["inspect"], ["bench"], ["compile"], ["run", "--image", "0"]):
        done = cli(command[0], bundle, *command[1:])
        assert done.returncode == 4
        assert "points outside" in done.stderr


NO_BUNDLES = {
    "empty.mmedge": (b"", "the file is empty", "copy it again, or export it again"),
    "notes.txt": (b"hello\n", "not a zip file", "name a .mmedge file"),
    "recipe.toml": (b'name = "x"\n', "a recipe", "mmedge export"),
    "net.onnx": (b"\x08\x08", "a network", "mmedge new DIR --from"),
    "cut.mmedge": (b"PK\x03\x04 and no more", "not a bundle or truncated", "copy it again, or export it again"),
}


@pytest.mark.parametrize("name", NO_BUNDLES)
def test_what_is_no_bundle_is_told_what_it_is(name: str, tmp_path: Path, cli: InProcess) -> None:
    content, message, fix = NO_BUNDLES[name]
    (tmp_path / name).write_bytes(content)
    done = cli("verify", tmp_path / name)
    assert done.returncode == 4
    assert message in done.stderr
    assert fix in done.stderr.partition("fix:")[2]
    if name != "net.onnx":
        assert cli("inspect", tmp_path / name).stderr == done.stderr


def test_folders_zips_and_devices_that_are_no_bundles(tmp_path: Path, bundle: Path, cli: InProcess) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    (tmp_path / "folder").mkdir()
    for path, message, fix in (
        (tmp_path / "a.zip", "a zip file, but not a bundle: 'manifest.json' is missing", "name a .mmedge file"),
        (tmp_path / "folder", "a folder, but not a bundle: 'manifest.json' is missing", "name a .mmedge file"),
        (tmp_path, "a folder, but not a bundle", f"name {bundle}"),
        (Path("/dev/zero"), "neither a file nor a folder", "name a .mmedge file"),  # which has no end
    ):
        done = cli("inspect", path)
        assert done.returncode == 4
        assert message in done.stderr
        assert f"fix: {fix}" in done.stderr


@pytest.mark.parametrize("columns", ["0", "60"])
def test_nothing_is_cut_off_in_a_narrow_terminal(columns: str) -> None:
    shipped = Path(__file__).parents[2] / "mmedge" / "assets" / "digits" / "digits.mmedge"
    done = mmedge("inspect", shipped, env={**os.environ, "COLUMNS": columns})
    lines = done.stdout.splitlines()
    assert len(lines) > 40
    assert max(map(len, lines)) <= (80 if columns == "0" else 60)
    assert "…" not in done.stdout
    assert done.stdout.count("│ image_encoder │ tensorrt int8 │") == 1


def test_verify_tells_a_failed_self_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: InProcess) -> None:
    from tests import tiny

    files = tiny.members()
    files["golden/ear.npz"] = files["golden/eye.npz"]
    monkeypatch.setattr(tiny, "members", lambda: files)
    path = tiny.tiny_bundle(tmp_path / "wrong.mmedge")
    done = cli("verify", path, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert not document["ok"]
    assert [row["stage"] for row in document["variants"] if row["error"]] == ["ear"]


def test_inspect_verify_devices_doctor_bench_json(bundle: Path, cli: InProcess) -> None:
    assert json.loads(cli("inspect", bundle, "--json").stdout)["manifest"]["name"] == "tiny"
    verified = json.loads(cli("verify", bundle, "--json").stdout)
    assert verified["ok"]
    assert len(verified["variants"]) == 3
    assert json.loads(cli("devices", "--json").stdout)["schema"] == "mmedge.devices/1"
    assert json.loads(cli("doctor", "--json").stdout)["schema"] == "mmedge.doctor/1"
    report = json.loads(cli("bench", bundle, "--duration", "3", "--json").stdout)
    assert report["schema"] == "mmedge.bench/2"
    assert report["evidence"] == "cpu"
    assert report["latency_ms"]["end_to_end"]["n"] > 5
    assert report["triggers"] == report["results"] + sum(report["drops"].values())


@pytest.mark.parametrize(
    ("hidden", "arguments", "extra"),
    [
        ("av", ["run", "BUNDLE", "--image", __file__], "capture"),
        ("onnxruntime", ["run", "BUNDLE", "--image", __file__], "cpu"),
        ("torch", ["train", "RECIPE"], "export"),
        ("onnx", ["export", "RECIPE"], "export"),
    ],
)
def test_a_missing_extra_gives_the_install_line(
    hidden: str, arguments: list[str], extra: str, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == '{hidden}':\n"
        "            raise ModuleNotFoundError(f\"No module named '{name}'\", name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    recipe = Path(__file__).parents[2] / "recipes" / "av_digits.toml"
    names = {"BUNDLE": str(bundle), "RECIPE": str(recipe)}
    done = mmedge(*[names.get(a, a) for a in arguments], env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 3
    assert f"pip install 'mmedge[{extra}]'" in done.stderr


def test_a_reader_that_leaves_ends_the_run_quietly(bundle: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    clip = write_clip(size=(64, 64), times_s=tuple(k / 25 for k in range(500)))
    command = [sys.executable, "-m", "mmedge", "run", str(bundle), "--image", str(clip), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            assert run.stderr is not None
            run.stdout.readline()
            run.stdout.close()
            err = run.stderr.read()
            assert run.wait(60) == 0, err
        finally:
            run.kill()
    assert "Traceback" not in err


def test_unsupported_operators_are_listed_at_once_with_source_lines(tmp_path: Path, cli: InProcess) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "bad_model.py").write_text(
        "import torch\n"
        "class Bad(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        y = torch.unique(x)\n"
        "        return y.sum() + torch.fft.rfft(x).abs().sum()\n"
        "program = torch.onnx.export(Bad(), (torch.randn(4, 16),), dynamo=True, opset_version=20, verbose=False)\n"
        "program.save('bad.onnx')\n"
    )
    subprocess.run([sys.executable, "bad_model.py"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    done = cli("compile", tmp_path / "bad.onnx")
    assert done.returncode == 5
    for expected in ("Unique", "bad_model.py:4", "DFT", "bad_model.py:5", "fix:"):
        assert expected in done.stderr
    found = json.loads(cli("inspect", tmp_path / "bad.onnx", "--json").stdout)["findings"]
    assert {"bad_model.py:4", "bad_model.py:5"} <= {Path(finding.get("source", "")).name for finding in found}


def test_interrupting_a_live_run_prints_the_summary_and_has_code_130(bundle: Path, write_clip) -> None:  # type: ignore[no-untyped-def]
    clip = write_clip(size=(64, 64), times_s=tuple(k / 25 for k in range(500)))
    command = [sys.executable, "-m", "mmedge", "run", str(bundle), "--image", str(clip), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            first = run.stdout.readline()
            run.send_signal(signal.SIGINT)
            _, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert json.loads(first)["schema"] == "mmedge.result/1"
    assert run.returncode == 130
    assert "results of" in err
    assert "Traceback" not in err
