"""What a network in float16 computes where float16 is rounded to: ONNX Runtime computes it in float32 on CPUs.

It puts casts of its own around each operator, and takes those away that meet; casts that are written stay.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..onnx.graphs import free_ending, name_once, replace_nodes
from ..onnx.onnx_models import OnnxModels
from .prepare import cast, tensor_types


def as_tensorrt_computes(version: OnnxModels) -> dict[str, onnx.ModelProto]:
    """Return stage -> network to judge: as TensorRT gets it, with every float16 tensor rounded where it is made."""
    return {**version.models, **{stage: emulated(model, stage) for stage, model in version.half.items()}}


def emulated(half: onnx.ModelProto, name: str = "model") -> onnx.ModelProto:
    """Return a network in float32 whose tensors that were float16 are rounded to it.

    Args:
        half: A network with float32 inputs and outputs, as ``half_rest`` makes it.
        name: For messages.
    """
    narrow = {tensor for tensor, (kind, _) in tensor_types(half, name).items() if kind == "tensor(float16)"}
    wide = onnx.ModelProto()
    wide.CopyFrom(half)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes: list[onnx.NodeProto] = []
    made, less = free_ending(wide, "/made"), free_ending(wide, "/rounded")
    for node in wide.graph.node:
        rounded = [output for output in node.output if output in narrow]
        node.output[:] = [f"{output}{made}" if output in narrow else output for output in node.output]
        nodes.append(node)
        for output in rounded:
            nodes.append(cast(f"{output}{made}", f"{output}{less}", TensorProto.FLOAT16))
            nodes.append(cast(f"{output}{less}", output, TensorProto.FLOAT))
            nodes[-1].name = f"{output}/widened"  # a Cast that makes it has the name of one
    replace_nodes(wide.graph, nodes)
    name_once(wide)
    del wide.graph.value_info[:]
    return wide
