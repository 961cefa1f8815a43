"""Sinks by name: found among what is installed, refused with whose fault it is, and asked for only where needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mmedge
from mmedge.cli import run
from mmedge.errors import ConfigError, MissingDependencyError
from mmedge.sinks import ConsoleSink, JsonlSink, make_sink, sink_names
from tests.conftest import WriteClip
from tests.tiny import tiny_bundle

MODULE = """
from mmedge.errors import MissingDependencyError

made = []

class Kept:
    def __init__(self, target):
        self.target, self.results, self.closed = target, [], False
        made.append(self)

    def write(self, result):
        self.results.append(result)

    def close(self):
        self.closed = True

def broken(target):
    return [][0]

def lacking(target):
    raise MissingDependencyError("needs paho", fix="pip install paho-mqtt")

def nothing(target):
    return target

def private(target, *, privacy="picture"):
    return Kept(privacy)
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on the path, as pip would: a module, and a folder of metadata with its entry points."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(distribution: str, **sinks: str) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(MODULE)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{factory}" for name, factory in sinks.items()]
        (info / "entry_points.txt").write_text("\n".join(["[mmedge.sinks]", *lines, ""]))

    return write


def test_the_own_sinks_are_registered_like_others(tmp_path: Path) -> None:
    assert sink_names() == ["console", "jsonl", "metrics", "mqtt", "mqtts", "video"]
    assert isinstance(make_sink("console"), ConsoleSink)
    sink = make_sink(f"jsonl:{tmp_path}/a:b.jsonl")
    assert isinstance(sink, JsonlSink)
    assert (tmp_path / "a:b.jsonl").exists()
    sink.close()


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("pigeon", "unknown sink 'pigeon'", "one of: console, jsonl, metrics, mqtt"),
        ("pigeon:post", "unknown sink 'pigeon:post'", "one of: console, jsonl, metrics, mqtt"),
        ("", "unknown sink ''", "one of: console, jsonl, metrics, mqtt"),
        ("jsonl", "needs a file", "jsonl:PATH"),
        ("jsonl:", "needs a file", "jsonl:PATH"),
        ("jsonl:/nowhere/x", "cannot write", "another path"),
        ("console:x", "takes no target", "use 'console'"),
        ("mqt://broker/a", "unknown sink 'mqt://", "did you mean 'mqtt'"),
        ("jsonl:x?tsaks=a", "unknown option 'tsaks'", "did you mean 'tasks'"),
        ("jsonl:x?max_mb=big", "max_mb", "docs/sinks.md"),
        ("jsonl:x?max_mb=-1", "max_mb", "docs/sinks.md"),
        ("jsonl:x?on=never", "option 'on'", "use one of result, change, event"),
        ("jsonl:x?min_score=2", "min_score", "docs/sinks.md"),
        ("jsonl:x?on=event&on=change", "'on' is given twice", "OPTION=VALUE"),
        ("mqtt://user:secret-word@/a", "no host", "mqtt://"),
        ("mqtt://broker", "topic is missing", "mqtt://"),
        ("mqtt://broker/a%2Bb", "topic is missing", "mqtt://"),
        ("mqtt://broker:port/a", "no host", "mqtt://"),
        ("mqtts://localhost/a?ca=/nowhere&spool_mb=0", "cannot be set up", "mqtt://"),
        ("mqtt://h/a%0Ab?spool_mb=0", "cannot be seen", "mqtt://"),
        ("metrics", "needs a port", "metrics:9464"),
        ("metrics:nine", "needs a port", "metrics:9464"),
        ("metrics:99999", "needs a port", "metrics:9464"),
        ("video", "needs a file", "video:FILE.mp4"),
        ("video:x.mp4?on=event", "events have none", "on=change"),
        ("video:x.gif", "must end in", "video:FILE.mp4"),
        ("video:/nowhere/x.mp4", "does not exist", "video:FILE.mp4"),
    ],
)
def test_refusals(text: str, message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_sink(text)
    assert message in f"{error.value.message} {error.value.where}"
    assert fix in str(error.value.fix)
    assert "secret-word" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_pipeline_writes_to_a_sink_of_another_package(
    install: Install, tmp_path: Path, write_clip: WriteClip
) -> None:
    install("mmedge-kept", kept="Kept")
    assert sink_names() == ["console", "jsonl", "kept", "metrics", "mqtt", "mqtts", "video"]
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    inputs = {"image": str(write_clip())}
    with mmedge.Pipeline(bundle, inputs, sinks=["kept:broker:1883/a", "kept"], latency="offline") as pipe:
        pipe.run()
    first, second = sys.modules["mmedge_kept"].made
    assert (first.target, second.target) == ("broker:1883/a", "")
    assert len(first.results) == len(second.results) == 25
    assert first.closed
    assert second.closed
    with pytest.raises(ConfigError, match="is not a sink") as error:
        mmedge.Pipeline(bundle, inputs, sinks=[7])  # type: ignore[list-item]
    assert "console, jsonl, kept, metrics" in str(error.value.fix)


def test_a_sink_of_another_package_keeps_to_the_privacy_of_the_run(
    install: Install, tmp_path: Path, write_clip: WriteClip
) -> None:
    install("mmedge-private", shown="private", kept="Kept")
    bundle, clip = str(tiny_bundle(tmp_path / "tiny.mmedge")), str(write_clip())
    texts = ["shown", "shown:x?on=event", "shown:y?privacy=picture", "kept:z"]
    sinks = [part for text in texts for part in ("--sink", text)]
    assert run(["run", bundle, "--image", clip, "--latency", "offline", "--privacy", "none", *sinks]) == 0
    made = sys.modules["mmedge_private"].made
    assert [sink.target for sink in made] == ["none", "none", "picture", "z"]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("broken", "'x:1' of the package 'mmedge-faulty' failed: IndexError"),
        ("absent", "'x:1' of the package 'mmedge-faulty' failed: AttributeError"),
        ("nothing", "'x:1' of the package 'mmedge-faulty' has no write and close"),
    ],
)
def test_a_faulty_package_is_named(factory: str, message: str, install: Install) -> None:
    install("mmedge-faulty", x=factory)
    with pytest.raises(ConfigError, match=message) as error:
        make_sink("x:1")
    assert error.value.where == f"mmedge.sinks: mmedge_faulty:{factory}"
    assert error.value.fix


def test_what_a_factory_says_is_left_as_it_is(install: Install) -> None:
    install("mmedge-lacking", x="lacking")
    with pytest.raises(MissingDependencyError, match="needs paho"):
        make_sink("x")


def test_nobody_takes_the_name_of_another(install: Install) -> None:
    install("mmedge-one", console="Kept", same="Kept")
    install("mmedge-two", same="Kept")
    with pytest.raises(ConfigError, match="several packages bring a sink 'console': 'mmedge' and 'mmedge-one'"):
        make_sink("console")
    with pytest.raises(ConfigError, match="'mmedge-one' and 'mmedge-two'") as error:
        make_sink("same:x")
    assert "uninstall" in str(error.value.fix)


def test_metadata_older_than_the_source_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with pytest.raises(ConfigError, match="unknown sink 'console'") as error:
        make_sink("console")
    assert "install mmedge again" in str(error.value.fix)


def test_nothing_is_looked_up_until_a_name_is_asked_for() -> None:
    """It reads a file of each installed package."""
    code = (
        "import sys, mmedge.cli.run\n"
        "from mmedge.pipeline.arguments import check_sinks\n"
        "from mmedge.sinks import JsonlSink\n"
        "check_sinks(['console', JsonlSink('-')])\n"
        "print('importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_a_run_says_at_its_end_what_a_sink_has_lost(
    tmp_path: Path, write_clip: WriteClip, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle, clip = tiny_bundle(tmp_path / "tiny.mmedge"), str(write_clip())
    assert run(["run", str(bundle), "--image", clip, "--latency", "offline", "--sink", "jsonl:/dev/full"]) == 0
    assert "sink jsonl:/dev/full: lost 25; cannot write results: No space left on device" in capfd.readouterr().err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_run_ends_in_order_when_the_reader_of_its_output_has_left(
    tmp_path: Path, write_clip: WriteClip, options: tuple[str, ...]
) -> None:
    clip = write_clip(times_s=tuple(k / 25 for k in range(500)), picture=lambda t: 235 if round(t * 25) % 2 else 16)
    line = [sys.executable, "-m", "mmedge", "run", str(tiny_bundle(tmp_path / "t.mmedge")), "--image", str(clip)]
    ran = subprocess.Popen([*line, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ran.stdout is not None
    assert ran.stdout.readline()
    ran.stdout.close()
    _, said = ran.communicate(timeout=60)
    assert ran.returncode == 0, said
    assert "Traceback" not in said


def test_events_on_the_console(tmp_path: Path, write_clip: WriteClip, capfd: pytest.CaptureFixture[str]) -> None:
    clip = str(write_clip(picture=lambda t: 235 if t >= 0.5 else 16))
    line = ["run", str(tiny_bundle(tmp_path / "t.mmedge")), "--image", clip, "--latency", "offline"]
    assert run([*line, "--sink", "console?on=event&tasks=scene"]) == 0
    dark, bright = capfd.readouterr().out.splitlines()
    assert "scene dark 1.00" in dark
    assert "(" not in dark
    assert "scene bright" in bright
    assert "(dark for 0.5 s)" in bright
