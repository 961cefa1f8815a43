"""``backend: auto`` on a CPU: what passes its self-test is timed once; the fastest serves until something changes."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmedge
from mmedge.bundle.archive import write_archive
from mmedge.bundle.manifest import File
from mmedge.cli import run
from mmedge.engine import timings as module
from mmedge.engine.cpu_backends import installed_backends
from mmedge.engine.timings import LEAST_GAIN, Timed, TimingKey, Timings, keep_timings, kept_timings
from mmedge.errors import MissingDependencyError
from mmedge.fusion import load_graph
from mmedge.fusion.choice import candidates, timing_key
from mmedge.fusion.measure import measure_cpu

ASSETS = Path(mmedge.__file__).parent / "assets"
DIGITS = ASSETS / "digits/digits.mmedge"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mmedge.fusion.choice.installed_backends", lambda: ("onnxruntime",))
    return tmp_path / "cache"


def timed(precision: str, run_ms: float | None, backend: str = "onnxruntime") -> Timed:
    error = "self-test failed" if run_ms is None else None
    return Timed(
        backend=backend, version="1", precision=precision, file=precision, sha256="0", run_ms=run_ms, error=error
    )


def told(*forms: Timed) -> Timings:
    return Timings(key=TimingKey(forms=tuple((f.backend, f.version, f.sha256) for f in forms)), forms=forms)


TIMES = st.one_of(st.none(), st.floats(0.01, 100))


BACKENDS = st.sampled_from(["onnxruntime", "openvino"])


@given(st.lists(st.tuples(st.sampled_from(["int8", "fp32", "fp16"]), TIMES, BACKENDS), max_size=6))
def test_what_serves_has_passed_and_is_never_slower_than_fp32(drawn):
    found = told(*(timed(*form) for form in drawn))
    good = [form for form in found.forms if form.run_ms is not None]
    assert sorted(found.order) == [place for place, form in enumerate(found.forms) if form.run_ms is not None]
    if good:
        first = found.forms[found.order[0]]
        plain = next((form for form in good if form.precision == "fp32"), None)
        home = [form for form in good if form.backend == found.forms[0].backend]
        fastest = min(form.run_ms for form in good)
        assert plain is None or first.run_ms <= plain.run_ms
        assert first.run_ms == fastest or fastest > (1 - LEAST_GAIN) * first.run_ms
        for near in ([plain] if plain else []), home:  # to leave them pays
            assert first in near or not near or first.run_ms <= (1 - LEAST_GAIN) * min(form.run_ms for form in near)
    assert found.why().count("self-test failed") == len(found.forms) - len(good)


def test_it_holds_for_one_machine_and_its_libraries(monkeypatch, caplog):
    found = told(timed("fp32", 2.0), timed("int8", 1.0))
    assert kept_timings(found.key) is None
    keep_timings(found)
    assert kept_timings(found.key) == found
    newer = msgspec.structs.replace(found.key, forms=tuple((b, "2", sha) for b, _, sha in found.key.forms))
    other = msgspec.structs.replace(found.key, instructions=("neon",))
    shaped = msgspec.structs.replace(found.key, profile={"x": (1, 3)})
    with caplog.at_level("INFO"):
        assert [kept_timings(key) for key in (newer, other, shaped)] == [None] * 3
    assert caplog.text.count("run `mmedge compile` again") == 3
    assert len({key.stem for key in (found.key, newer, other, shaped)}) == 4


def test_a_damaged_record_is_told_and_not_believed(cache, caplog):
    found = told(timed("fp32", 2.0), timed("int8", 1.0))
    keep_timings(found)
    (file,) = cache.glob("cpu-*.json")
    file.write_text('{"schema": 1}')
    assert kept_timings(found.key) is None
    assert "cannot be read" in caplog.text


def test_auto_serves_what_was_measured_and_other_backends_stay_as_they_are(caplog):
    with mmedge.load(DIGITS) as bundle:
        before = candidates(bundle, "fusion", "auto", None)
        rows = measure_cpu(bundle, lambda text, share: None)
        assert {row["stage"] for row in rows} == {"image_encoder", "audio_encoder", "text_encoder", "fusion"}
        for row in rows:
            assert [form["error"] for form in row["forms"]] == [None, None]
            assert [form["serves"] for form in row["forms"]].count(True) == 1
            assert all(form["run_ms"] > 0 for form in row["forms"])
            assert not row["cached"]
        assert all(row["cached"] for row in measure_cpu(bundle, lambda text, share: None))
        assert not any(row["cached"] for row in measure_cpu(bundle, lambda text, share: None, anew=True))
        # Whatever was faster here, this record says int8.
        key = timing_key(bundle, "fusion")
        known = kept_timings(key)
        assert known is not None
        forms = tuple(
            msgspec.structs.replace(form, run_ms=1.0 if form.precision == "int8" else 2.0) for form in known.forms
        )
        keep_timings(Timings(key=key, forms=forms))
        assert [v.precision for _, v in candidates(bundle, "fusion", "auto", None)] == ["int8", "fp32"]
        assert [v.precision for _, v in candidates(bundle, "fusion", "auto", "fp32")] == ["fp32"]
        assert candidates(bundle, "fusion", "onnxruntime", None) == before
        graph = load_graph(bundle, backend="auto")
        assert graph.served["fusion"] == "onnxruntime fusion.cpu.int8.onnx"
        graph.close()
        # A record in which it failed puts it last.
        bad = tuple(
            msgspec.structs.replace(form, run_ms=None, error="wrong") if form.precision == "int8" else form
            for form in forms
        )
        keep_timings(Timings(key=key, forms=bad))
        assert [v.precision for _, v in candidates(bundle, "fusion", "auto", None)] == ["fp32", "int8"]


def test_an_installed_openvino_is_measured_beside_the_others_and_can_serve(monkeypatch):
    pytest.importorskip("openvino", reason="the extra mmedge[openvino] is not installed")
    monkeypatch.setattr("mmedge.fusion.choice.installed_backends", lambda: ("onnxruntime", "openvino"))
    with mmedge.load(DIGITS) as bundle:
        rows = measure_cpu(bundle, lambda text, share: None)
        for row in rows:
            tried = [(form["backend"], form["precision"]) for form in row["forms"]]
            assert tried == [(b, p) for b in ("onnxruntime", "openvino") for p in ("fp32", "int8")]
            assert {form["version"] for form in row["forms"]} == {version("onnxruntime"), version("openvino")}
            for form in row["forms"]:  # its INT8 kernels may be too far off on this CPU, and then they do not serve
                assert form["error"] is None or (form["backend"], form["precision"]) == ("openvino", "int8")
                assert (form["error"] is None) == (form["run_ms"] is not None)
        # Whatever was faster here, this record says OpenVINO.
        key = timing_key(bundle, "fusion")
        known = kept_timings(key)
        assert known is not None
        best = ("openvino", "fp32")
        forms = tuple(
            msgspec.structs.replace(form, run_ms=1.0 if (form.backend, form.precision) == best else 2.0)
            for form in known.forms
        )
        keep_timings(Timings(key=key, forms=forms))
        graph = load_graph(bundle, backend="auto")
        assert graph.served["fusion"] == "openvino fusion.cpu.fp32.onnx"
        graph.close()


def test_a_back_end_that_is_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "mmedge.engine.openvino_library", raising=False)
    with mmedge.load(DIGITS) as bundle, pytest.raises(MissingDependencyError) as caught:
        load_graph(bundle, backend="openvino")
    assert caught.value.fix == "pip install 'mmedge[openvino]'"
    assert "openvino" not in installed_backends()


def test_a_form_that_fails_its_self_test_is_named_and_does_not_serve(tmp_path):
    def doubled(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name.endswith("_scale"):
                value = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array((value * 3).astype(value.dtype), tensor.name))

    with mmedge.load(DIGITS) as bundle:
        members = {name: bundle.read(name) for name in bundle.manifest.files}
        model = onnx.load_from_string(members["fusion.cpu.int8.onnx"])
        doubled(model)
        members["fusion.cpu.int8.onnx"] = content = model.SerializeToString()
        file = File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        files = {**bundle.manifest.files, "fusion.cpu.int8.onnx": file}
        changed = msgspec.structs.replace(bundle.manifest, files=files)
    with mmedge.load(write_archive(tmp_path / "wrong.mmedge", changed, members)) as bundle:
        row = next(row for row in measure_cpu(bundle, lambda text, share: None) if row["stage"] == "fusion")
    assert [form["serves"] for form in row["forms"]] == [True, False]
    assert "self-test failed" in row["forms"][1]["error"]
    assert "self-test failed" in row["why"]


def test_compile_without_tensorrt_chooses_for_the_cpu(monkeypatch, capfd):
    monkeypatch.setattr("mmedge.cli.compile.tensorrt_choice", lambda: None)
    assert run(["compile", str(DIGITS), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "mmedge.compile/1"
    assert document["engines"] == []
    for row in document["cpu"]:
        assert row["threads"] == 1
        assert row["instructions"] == list(module.instruction_sets())
        assert {form["backend"] for form in row["forms"]} >= {"onnxruntime"}
        assert row["why"]
    assert run(["compile", str(DIGITS)]) == 0
    text = capfd.readouterr().out
    assert "no engines are built: TensorRT is not installed" in text
    assert "serves" in text
