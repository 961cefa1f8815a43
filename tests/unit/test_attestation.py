"""An attestation says by its hash whether it was changed, and never whose machine it is of."""

from __future__ import annotations

import getpass
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bench.attestation import SCHEMA, private, read, seal
from mmedge.bench.compare import read_baseline
from mmedge.bench.report import SCHEMA as BENCH
from mmedge.errors import CheckError, ConfigError
from mmedge.files import read_plain
from mmedge.forecast.seal import digest, read_sealed
from mmedge.forecast.times import read_measured
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


def attestation(**changes: Any) -> dict[str, Any]:
    figures = {"p50": 6.5, "p99": 11.0, "n": 900}
    report = {
        "schema": BENCH,
        "evidence": "cpu",
        "latency_ms": {"end_to_end": figures},
        "stages_ms": {},
        "rate": {"asked_hz": 30.0},
        "runtime_share": {"p50": 1.5},
        "conditions": {
            "machine": "NVIDIA Jetson Orin Nano Developer Kit",
            "backends": {"a": "tensorrt", "b": "tensorrt"},
        },
    }
    document = {
        "schema": SCHEMA,
        "bundle": {"name": "digits", "manifest_sha256": "0" * 64},
        "doctor": {},
        "compile": {},
        "golden": [],
        "bench": report,
    }
    return seal({**document, "sweep": None, "valid": True, "problem": None, **changes})


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document, indent=2))
    return path


def test_what_was_changed_is_refused(tmp_path: Path) -> None:
    document = attestation()
    assert read(write(tmp_path / "a.json", document)) == document
    document["bench"]["latency_ms"]["end_to_end"]["p50"] = 1.5
    with pytest.raises(CheckError, match="was changed after it was made"):
        read(write(tmp_path / "a.json", document))
    with pytest.raises(CheckError, match="not valid: contended"):
        read(write(tmp_path / "a.json", attestation(valid=False, problem="contended")))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        '"x"',
        "[" * 100_000,
        '{"schema": "mmedge.attest/1"}',
        json.dumps({"schema": "mmedge.bench/2"}),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ConfigError):
        read(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "nowhere.json")


def test_a_report_of_another_schema_and_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its report is not of schema"):
        read(write(tmp_path / "a.json", attestation(bench={"schema": "mmedge.bench/1"})))
    with pytest.raises(ConfigError, match="not strict JSON"):
        read(write(tmp_path / "a.json", {**attestation(), "golden": [float("nan")]}))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("bundle",), "digits"),
        (("bundle",), {"name": 3}),
        (("bench", "latency_ms"), []),
        (("bench", "latency_ms"), {}),
        (("bench", "latency_ms", "end_to_end", "p50"), "6.5"),
        (("bench", "conditions"), {}),
        (("bench", "conditions", "machine"), 7),
    ],
)
def test_a_sealed_one_that_lacks_what_is_shown_is_refused(tmp_path: Path, at: tuple[str, ...], value: object) -> None:
    document: Any = attestation()
    part = document
    for key in at[:-1]:
        part = part[key]
    part[at[-1]] = value
    with pytest.raises(ConfigError, match="malformed"):
        read(write(tmp_path / "a.json", seal(document)))


def test_a_pipe_is_not_waited_for_and_a_device_not_read_without_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigError, match="not a plain file"):
            read(path)
        with pytest.raises(ConfigError, match="not a plain file"):
            read_sealed(path)
        with pytest.raises(ConfigError, match="not a plain file"):
            read_measured(path, "digits")
        with pytest.raises(ConfigError, match="not a plain file"):
            read_baseline(path)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="too large"):
        read_plain(tmp_path / "large", 10)
    assert read_plain(tmp_path / "large", 11) == b"x" * 11


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("latency_ms", {}),
        ("latency_ms", {"end_to_end": {"p50": "fast"}}),
        ("conditions", {"machine": 7}),
        ("rate", {"asked_hz": 0}),
        ("stages_ms", {"fusion": 1.5}),
        ("runtime_share", 1.5),
    ],
)
def test_parts_that_are_not_what_they_should_be_are_refused_whatever_the_hash(
    tmp_path: Path, part: str, value: object
) -> None:
    bench = {**attestation()["bench"], part: value}
    with pytest.raises(ConfigError, match="a part of the attestation is malformed"):
        read(write(tmp_path / "a.json", attestation(bench=bench)))


@given(document=st.dictionaries(st.text(), JSON))
def test_the_hash_is_that_of_what_is_read_back(document: dict[str, Any]) -> None:
    read_back = json.loads(json.dumps(document, indent=3))
    assert digest(document) == digest({**read_back, "sha256": "whatever"})


def test_host_user_and_home_never_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "orin7")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    for text in ("on orin7", "/home/ada/x", "user=ada", "ada"):
        assert private({"a": {"b": ["fine", text]}}) == {"$.a.b[1]"}
        with pytest.raises(CheckError, match="whose machine"):
            attestation(doctor={"a": text})
    assert private({"a": ["Canada", "orin70", "/home/adam/x", 7, None]}) == set()
    assert private({"orin7": 1}) == {"$.orin7"}


def test_the_page_of_the_boards_is_that_of_the_attestations() -> None:
    hardware = load_script("hardware")
    kept = [read(path) for path in sorted((ROOT / "attestations").glob("*.json"))]
    assert hardware.PAGE.read_text() == hardware.page(kept), "run scripts/hardware.py"
    page = hardware.page([attestation()])
    assert (
        "| NVIDIA Jetson Orin Nano Developer Kit | digits | tensorrt | cpu | 6.5 | 11.0 | 900 | 1.5 | - | - |" in page
    )
    assert page.count("nobody has run it yet") == len(hardware.BOARDS) - 1
