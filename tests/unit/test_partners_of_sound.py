"""The streaming log-mels that ours is measured beside do the same work, update after update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.logmel import Microphone, seat
from benchmarks.partners.numpy_mel import NumpyStreamingLogMel
from mmedge.types import FloatArray

Partner = Callable[[FloatArray, FloatArray], None]


def by_numpy(step: int) -> Partner:
    return NumpyStreamingLogMel(seat(), step)


def by_knf(step: int) -> Partner:
    pytest.importorskip("kaldi_native_fbank")
    from benchmarks.partners.knf import KnfLogMel

    partner = KnfLogMel(seat())
    partner.begin(np.zeros(240, np.float32))
    return partner


@pytest.mark.parametrize(("make", "mean"), [(by_numpy, 1e-5), (by_knf, 0.01)])
@pytest.mark.parametrize("step_ms", [20, 100])
def test_a_streaming_partner_gives_what_the_runtime_gives(
    step_ms: int, make: Callable[[int], Partner], mean: float
) -> None:
    microphone = Microphone(step_ms)
    ours, want = microphone.runtime(seat())
    partner, got = make(microphone.step), np.zeros_like(want)
    for update in range(500):  # its rows begin anew at the front more than once
        microphone()
        partner(microphone.block, got)
        if update > 50 and update % 7 == 0:
            ours()
            assert np.abs(got - want).mean() < mean
