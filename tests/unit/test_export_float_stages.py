"""A stage that has none of the precisions that the recipe asks for is packed in fp32, so that the graph is whole."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import helper

from mmedge.bundle import load
from mmedge.errors import ConfigError
from mmedge.export import pack, quantize
from mmedge.export.int8.fp16 import to_fp16
from mmedge.export.onnx.gate import Gate
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.pack import make_members
from mmedge.fusion import load_graph
from tests.unit.test_export_pack import RECIPE, encoder, fusion, network, recipe_in, samples


def loudest() -> onnx.ModelProto:
    """An encoder without weights, all of whose nodes need float32: it has neither an int8 nor an fp16 form."""
    return network(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["sum"], name="sum", keepdims=0),
            helper.make_node("TopK", ["sum", "k"], ["embedding", "where"], name="top"),
        ],
        {"x": [1, 15, 10]},
        {"embedding": [1, 6]},
        axes=np.array([1], np.int64),
        k=np.array([6], np.int64),
    )


def exported(tmp_path, precision: str, targets: str) -> list[OnnxModels]:
    recipe = recipe_in(tmp_path, RECIPE + f'[export]\nprecisions = ["{precision}"]\ntargets = {targets}\n')
    networks = {"image_encoder": encoder([1, 1, 12, 14]), "audio_encoder": loudest(), "fusion": fusion()}
    fp32 = OnnxModels(recipe=recipe, precision="fp32", models=networks)
    return [fp32, quantize(fp32, None, samples()) if precision == "int8" else to_fp16(fp32, samples())]


@pytest.mark.parametrize(
    ("precision", "targets"), [("int8", '["cpu", "tensorrt"]'), ("int8", '["cpu"]'), ("fp16", '["tensorrt"]')]
)
def test_a_stage_that_stays_float_is_packed_in_fp32(tmp_path, caplog, precision, targets):
    models = exported(tmp_path, precision, targets)
    reason = models[1].skipped["audio_encoder"]
    with caplog.at_level(logging.WARNING):
        path = pack(tmp_path / "t.mmedge", models[0].recipe, models, samples=samples())
    assert f"stage 'audio_encoder' is packed in fp32: it has no {precision} form: {reason}" in caplog.text
    with load(path) as bundle:
        found = {(v.stage, v.target, v.precision) for v in bundle.manifest.variants}
        for target in models[0].recipe.export.targets:
            assert ("audio_encoder", target, "fp32") in found
            assert ("image_encoder", target, precision) in found
            assert ("image_encoder", target, "fp32") not in found, "only what has no other form"
        if "cpu" in models[0].recipe.export.targets:
            load_graph(bundle, backend="onnxruntime", precision=None).close()


def test_what_tensorrt_refuses_runs_on_the_cpu_or_is_an_error(tmp_path):
    gate = Gate(refused={"fusion": ("no such operator",)})
    alone = exported(tmp_path, "fp16", '["tensorrt"]')
    with pytest.raises(ConfigError, match=r"TensorRT cannot run this stage: no such operator.*"):
        make_members(alone[0].recipe, alone, samples(), gate)
    both = exported(tmp_path, "int8", '["cpu", "tensorrt"]')
    members = make_members(both[0].recipe, both, samples(), gate)
    assert {(v.target, v.precision) for v in members.variants if v.stage == "fusion"} == {("cpu", "int8")}
