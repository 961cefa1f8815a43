"""The checklist of a board: each line asks for its own evidence; every planned row of README and docs has a line."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bench.checklist import CHECKLIST, checklist, shown
from mmedge.doctor.machine import read_machine
from mmedge.doctor.report import Check
from mmedge.errors import ConfigError
from tests.board_trees import NAMES, NOW_S, PATH, diagnose, lay_out
from tests.scripts import load_script
from tests.unit.test_attestation import attestation

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
CLAIMS = tomllib.loads((ROOT / "docs/evidence.toml").read_text())["claims"]
BY_HAND = {"dla", "multiprocessors", "gpu-tests", "memory-order", "install"}


def device(uri: str, modality: str, packets: int = 100) -> dict[str, Any]:
    return {"uri": uri, "error": None, "streams": [{"modality": modality, "packets": packets}]}


def of_a_board() -> dict[str, Any]:
    """Return what a board in order would send, without its hash: made up, for the rules alone."""
    report = {
        "evidence": "jetson",
        "valid": True,
        "problem": None,
        "processes": [{"name": "runtime", "grown_mib": 1.0}],
    }
    soak = {
        **report,
        "conditions": {
            "duration_s": 180.0,
            "inputs": {"image": "0", "audio": "mic://default"},
            "temperature_c": {"cpu-thermal": 61.0},
            "clock_mhz": {"policy0": [1510, 1510]},
        },
    }
    return {
        "doctor": {"machine": {"board": {"model": "NVIDIA Jetson AGX Orin"}}, "checks": []},
        "compile": {"engines": [{"stage": "a", "precision": "int8", "error": None, "run_ms": 0.3}], "problem": None},
        "golden": [{"stage": "a", "target": "tensorrt", "precision": "int8", "error": None}],
        "bench": report,
        "sweep": {"valid": True, "knee_hz": 120.0},
        "board": {
            "devices": [
                device("csi://0", "image"),
                device("v4l2:///dev/video1", "image"),
                device("mic://default", "audio"),
            ],
            "calibration": {"offset_ns": 31_400_000},
            "soak": soak,
        },
    }


def missing(document: dict[str, Any]) -> set[str]:
    return {line.name for line in checklist(document) if line.missing is not None}


def test_a_board_in_order_lacks_what_is_done_by_hand() -> None:
    assert missing(of_a_board()) == BY_HAND
    assert shown(of_a_board(), ["engines", "soak"])
    assert not shown(of_a_board(), ["engines", "gpu-tests"])


def fails(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        at: Any = document
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("line", "change", "says"),
    [
        ("board", fails("doctor", "checks", value=[{"name": "clock", "status": "fail", "detail": "1970"}]), "1970"),
        ("engines", fails("compile", value={"engines": [], "problem": "no TensorRT"}), "no TensorRT"),
        ("engines", fails("compile", "engines", 0, "run_ms", value=None), "a int8: built, but not run"),
        ("golden", fails("golden", 0, "error", value="off by 3"), "off by 3"),
        ("golden", fails("golden", value=[]), "no network"),
        ("latency", fails("bench", value={"evidence": "cpu"}), "'cpu'"),
        ("latency", fails("bench", "valid", value=False), "not valid"),
        ("knee", fails("sweep", value=None), "no rates"),
        ("knee", fails("sweep", "valid", value=False), "no knee"),
        ("csi", fails("board", "devices", 0, value=device("csi://0", "image", 0)), "no such device"),
        (
            "csi",
            fails("board", "devices", 0, value={"uri": "vi-output, imx219 9-0010", "error": {"message": "no element"}}),
            "imx219 9-0010: no element",
        ),
        (
            "usb-camera",
            fails("board", "devices", 1, value={"uri": "v4l2:///dev/video1", "error": {"message": "taken"}}),
            "v4l2:///dev/video1: taken",
        ),
        ("microphone", fails("board", "devices", 2, value=device("mic://default", "image")), "no such device"),
        ("one-clock", fails("board", "calibration", value={"problem": "no flash"}), "no flash"),
        ("live", fails("board", "soak", "conditions", "inputs", value={"image": "0"}), "without a microphone"),
        ("live", fails("board", "soak", "conditions", "inputs", value="generated"), "generated pictures"),
        ("soak", fails("board", "soak", "conditions", "duration_s", value=30.0), "30 of 180 s"),
        ("soak", fails("board", "soak", "processes", 0, "grown_mib", value=70.0), "grew by 70 MiB"),
        ("soak", fails("board", "soak", "processes", value=[]), "not measured"),
        ("soak", fails("board", "soak", "rate", value={"due": 5400, "answered": 5300}), "100 of 5400"),
        ("throttle", fails("board", "soak", "conditions", "throttled", value={"oc3": 4}), "slowed down by oc3"),
        ("throttle", fails("board", "soak", "conditions", "temperature_c", value={}), "does not tell"),
    ],
)
def test_a_line_is_missing_where_its_evidence_is(line: str, change: Any, says: str) -> None:
    document = of_a_board()
    change(document)
    found = {row.name: row for row in checklist(document)}
    assert missing(document) == BY_HAND | {line}
    assert says in (found[line].missing or "")
    assert found[line].fix


@pytest.mark.parametrize("name", NAMES)
def test_what_the_doctor_says_of_a_board_is_what_the_checklist_reads(name: str, tmp_path: Path) -> None:
    python = f"{lay_out(name, tmp_path)['python']}.3"
    machine = read_machine(tmp_path, path=PATH, python_path=[], unix_s=NOW_S)

    def lines(checks: Mapping[str, Check]) -> dict[str, str | None]:
        doctor = {"machine": msgspec.to_builtins(machine), "checks": msgspec.to_builtins(list(checks.values()))}
        return {line.name: line.missing for line in checklist({**of_a_board(), "doctor": doctor})}

    assert lines(diagnose(tmp_path, python=python))["board"] is None
    assert "clock: it says 1970" in str(lines(diagnose(tmp_path, python=python, unix_s=0.0))["board"])


def test_another_machine_is_no_evidence_for_a_board() -> None:
    document = of_a_board()
    document["doctor"]["machine"]["board"] = None
    assert "board" in missing(document)
    assert not shown(document, ["engines"])
    assert missing(attestation()) >= {"board", "engines", "soak", "csi", "live", "throttle", *BY_HAND}


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({}) | st.just([[]])


@given(data=st.data())
def test_a_document_of_any_kind_gives_lines_or_says_that_it_is_malformed(data: st.DataObject) -> None:
    document: Any = copy.deepcopy(of_a_board())
    at = document
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        inside = at[key]
        if not isinstance(inside, (dict, list)) or not inside or data.draw(st.booleans()):
            at[key] = data.draw(LEAVES)
            break
        at = inside
    with contextlib.suppress(ConfigError):
        assert len(checklist(document)) == len(CHECKLIST)


def test_every_planned_row_has_evidence_or_a_line() -> None:
    names = {item.name for item in CHECKLIST}
    assert len(names) == len(CHECKLIST)
    readme = dict(re.findall(r"<!-- claim: ([a-z0-9-]+) -->([^|\n]*)", (ROOT / "README.md").read_text()))
    for name, claim in CLAIMS.items():
        lines = claim.get("jetson")
        of_a_board = claim["evidence"] == "built-not-run" or re.search(
            "jetson|aarch64|tensorrt|cuda", readme[name], re.I
        )
        assert lines or not of_a_board or claim["evidence"] == "jetson", f"{name}: no line of the checklist shows it"
        assert set(lines or ()) <= names, name
    used = {line for claim in CLAIMS.values() for line in claim.get("jetson", ())}
    assert used == names, f"no claim rests on {names - used}"
    table = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/jetson.md").read_text(), re.M)
    assert table == [item.name for item in CHECKLIST], "the table of docs/jetson.md is not the checklist"


def test_claims_are_raised_by_what_was_shown_and_no_others() -> None:
    hardware = load_script("hardware")
    text = (ROOT / "docs/evidence.toml").read_text()
    raised, names = hardware.raise_claims(text, {"orin.json": of_a_board()})
    claims = tomllib.loads(raised)["claims"]
    for name, claim in claims.items():
        lines = set(CLAIMS[name].get("jetson", ["none"]))
        if lines <= {item.name for item in CHECKLIST} - BY_HAND:
            assert (claim["evidence"], claim["shown_by"]) == ("jetson", "attestations/orin.json"), name
            assert name in names
        else:
            assert claim == CLAIMS[name]
    assert {"tensorrt-engines", "boards", "live-devices"} <= set(names)
    not_a_board = json.loads(json.dumps(of_a_board()))
    not_a_board["doctor"]["machine"] = None
    assert hardware.raise_claims(text, {"pc.json": not_a_board}) == (text, [])
