"""A form of a network that is written for a target is held against the network before it, on recorded inputs."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mmedge.errors import CheckError
from mmedge.export import quantize, to_fp16
from mmedge.export.int8 import cpu_choice, fp16
from mmedge.export.int8.cpu_form import to_cpu_form
from mmedge.export.onnx.onnx_models import OnnxModels
from tests.unit.test_export_kinds import NODE, feeds, models_of, net, w

BIAS = np.linspace(-3, 4, 5, dtype=np.float32)


def layer() -> onnx.ModelProto:
    return net([NODE("Gemm", ["x", "w", "b"], ["y"], name="layer")], [4, 6], {"w": w(6, 5), "b": BIAS})


def twice(model: onnx.ModelProto, suffix: str) -> onnx.ModelProto:
    """Double a constant, as an error in writing a form would."""
    for tensor in model.graph.initializer:
        if tensor.name.endswith(suffix):
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((value * 2).astype(value.dtype), tensor.name))
    return model


def forms(tmp_path) -> tuple[OnnxModels, OnnxModels]:
    fp32 = models_of(tmp_path, layer())
    return fp32, quantize(fp32, None, feeds(layer()))


packing = importlib.import_module("mmedge.export.pack")  # the package has a function of that name


def test_a_wrong_int8_form_of_cpus_is_not_packed(tmp_path, monkeypatch):
    fp32, int8 = forms(tmp_path)
    given = feeds(layer())
    packing.make_members(int8.recipe, [fp32, int8], given)
    monkeypatch.setattr(cpu_choice, "to_cpu_form", lambda *given: twice(to_cpu_form(*given), "cpu_bias_scale"))
    with pytest.raises(CheckError, match=r"'INT8 form of CPUs' changes .*'layer' \(Gemm\)"):
        packing.make_members(int8.recipe, [fp32, int8], given)


def test_a_wrong_fp16_file_is_an_error(tmp_path, monkeypatch):
    written = fp16.converted
    monkeypatch.setattr(fp16, "converted", lambda *given: twice(written(*given), "b/fp16"))
    with pytest.raises(CheckError, match=r"'float16' changes .*'layer' \(Gemm\)"):
        to_fp16(models_of(tmp_path, layer()), feeds(layer()))
