"""A variant to an engine: looked up, built once, published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import compile_network, compile_variant, engine_key
from mmedge.engine.network import read_network
from mmedge.engine.tensorrt_loader import load_tensorrt
from mmedge.errors import EngineError
from tests.networks import FLOAT, NODE, network

pytest.importorskip("tensorrt_rtx", reason="pip install 'mmedge[tensorrt-rtx]'")
onnx_parser = pytest.importorskip("onnx.parser", reason="pip install 'mmedge[export]'")
RTX = {"module": "tensorrt_rtx", "compute_capability": "SM86"}
MODEL = onnx_parser.parse_model(
    '<ir_version: 9, opset_import: ["" : 20]> g (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }'
).SerializeToString()
SHA256 = hashlib.sha256(MODEL).hexdigest()


def test_built_once_then_cached(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    first = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, **RTX)
    assert not first.cached
    assert first.plan_path.parent == tmp_path
    assert Path(first.build.log_path).exists()
    assert first.evidence == "built-not-run"

    def never(phase: str, share: float) -> None:
        raise AssertionError("built again")

    second = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, progress=never, **RTX)
    assert second.cached
    assert (second.plan_path, second.build) == (first.plan_path, first.build)


def test_another_target_is_another_engine(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    first = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, **RTX)
    other = compile_variant(
        MODEL, SHA256, "head", "fp32", cache=cache, module="tensorrt_rtx", compute_capability="SM89"
    )
    assert not other.cached
    assert other.plan_path != first.plan_path
    assert other.build.compute_capability == "SM89"


def test_an_engine_that_only_may_serve_and_is_damaged_is_built_under_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EngineCache(tmp_path)
    elsewhere = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, **RTX)
    other = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, module=RTX["module"], compute_capability="SM89")
    find = EngineCache.find
    monkeypatch.setattr(EngineCache, "find", lambda self, key: elsewhere.key)
    served = compile_variant(
        MODEL, SHA256, "head", "fp32", cache=cache, module=RTX["module"], compute_capability="SM89"
    )
    assert (served.cached, served.key) == (True, elsewhere.key)
    elsewhere.plan_path.write_bytes(b"damaged")
    cache.discard(other.key)
    built = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, module=RTX["module"], compute_capability="SM89")
    assert (built.cached, built.key) == (False, other.key)
    monkeypatch.setattr(EngineCache, "find", find)
    assert cache.get(other.key) is not None


def test_a_damaged_plan_is_built_again(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    first = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, **RTX)
    plan = first.plan_path.read_bytes()
    first.plan_path.write_bytes(plan[:-1])
    again = compile_variant(MODEL, SHA256, "head", "fp32", cache=cache, **RTX)
    assert not again.cached
    assert len(again.plan_path.read_bytes()) == len(plan)


def test_a_failed_build_leaves_its_log_and_no_engine(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    with pytest.raises(EngineError):
        compile_variant(b"\xff", SHA256, "head", "fp32", cache=cache, **RTX)
    key = engine_key(load_tensorrt("tensorrt_rtx"), SHA256, compute_capability="SM86")
    assert cache.get(key) is None
    assert cache.log_path(key).exists()
    assert not list(tmp_path.glob("*.plan"))


def test_weights_that_change_while_they_are_built_are_published_under_no_key(tmp_path: Path) -> None:
    model = network([NODE("Mul", ["x", "w"], ["y"])], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}, w=np.float32([1, 2]))
    path = tmp_path / "m.onnx"
    onnx = pytest.importorskip("onnx")
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    cache = EngineCache(tmp_path / "cache")

    def retrain(phase: str, share: float) -> None:
        if phase == "built":  # not while it is read
            data = (tmp_path / "m.data").read_bytes()
            (tmp_path / "m.data").write_bytes(bytes(len(data)))

    with pytest.raises(EngineError, match="changed while it was built"):
        compile_network(read_network(path), cache=cache, progress=retrain, **RTX)
    assert not list(cache.folder.glob("*.plan"))
    assert not compile_network(read_network(path), cache=cache, **RTX).cached
    assert compile_network(read_network(path), cache=cache, **RTX).cached
