"""Outputs of one row of numbers are read alike, whether or not there is a batch in front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mmedge.export.brought.infer import Network, task_of
from tests.unit.test_export_kinds import NODE, net


def network(shape: tuple[int, ...], operator: str) -> Network:
    model = net([NODE(operator, ["x"], ["y"], name="end")], list(shape), {}, dtype=TensorProto.FLOAT)
    return Network(name="net", path=Path("net.onnx"), model=model)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 3, 1, 1)])
def test_classes_in_one_row_are_counted(shape):
    samples = [np.random.default_rng(k).normal(size=shape).astype(np.float32) for k in range(4)]
    found = task_of(network(shape, "Identity"), "y", samples, "Identity", None)
    assert found is not None
    task, why = found
    assert (task.kind, task.labels, task.scores) == ("classification", ("0", "1", "2"), "logits")
    assert "3 classes" in why


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("operator", ["Sigmoid", "Identity"])
def test_one_number_is_a_probability_where_its_end_says_so(shape, operator):
    samples = [np.full(shape, value, np.float32) for value in (0.1, 0.5, 0.8)]
    found = task_of(network(shape, operator), "y", samples, operator, None)
    if operator == "Identity":
        assert found is None
    else:
        assert found is not None
        assert (found[0].labels, found[0].threshold) == (("net",), 0.5)
