"""The INT8 form of CPUs keeps what a layer adds, however its weights are grouped."""

from __future__ import annotations

import numpy as np
import pytest

from mmedge.export import quantize
from mmedge.export.int8.cpu_form import to_cpu_form
from mmedge.export.judge import judge
from tests.unit.test_export_kinds import NODE, feeds, models_of, net, w


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_bias_counts_in_units_of_its_own_channel_in_every_group(tmp_path, operator, group):
    shape = (8, 4 // group, 3, 3) if operator == "ConvTranspose" else (4, 8 // group, 3, 3)
    network = net(
        [NODE(operator, ["x", "w", "b"], ["y"], name="layer", group=group)],
        [1, 8, 5, 5],
        {"w": w(*shape) * np.float32(4), "b": np.array([5, -3, 0.5, 2], np.float32)},
    )
    fp32 = models_of(tmp_path, network)
    int8 = quantize(fp32, None, feeds(network)).models["s"]
    form = to_cpu_form(int8)
    assert "layer/cpu_bias" in {node.name for node in form.graph.node}
    with judge(int8) as written, judge(form) as ours:
        for feed in feeds(network, 4):
            want = written(feed)["y"]
            assert np.abs(ours(feed)["y"] - want).max() < 0.03 * np.abs(want).max()
