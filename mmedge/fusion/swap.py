"""Put another engine into a stage that is in use, between two triggers: what the stage knows stays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mmedge.fusion.stage import StageRunner

# What a stage has of its engine; everything else is its life: outputs, states, what it has seen and when it is due.
_BOUND = ("engine", "raw", "file", "_feeds", "check")


def take_over(stage: StageRunner, other: StageRunner, graph: Iterable[StageRunner]) -> bool:
    """Let ``stage`` run on the engine of ``other`` from now on, and free its own.

    Args:
        stage: What is in use.
        other: Made of the same entry of the manifest; nothing may use it any more.
        graph: All stages that may be fed by it.

    Returns:
        Whether it was done: not while the stage runs in the background.
    """
    if stage._future is not None and not stage._future.done():
        return False
    old, new = stage.engine, other.engine
    shared = all(stage.outputs[name] is array for name, array in old.outputs.items())
    for ours, theirs in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        for name, array in ours.items():
            if array.shape == theirs[name].shape and np.can_cast(array.dtype, theirs[name].dtype, "same_kind"):
                np.copyto(theirs[name], array, casting="same_kind")
    for name in _BOUND:
        setattr(stage, name, getattr(other, name))
    if shared:  # otherwise readers see copies, which stay
        stage.outputs = other.outputs
    stage.cost_ns = 0
    old.close()
    for follower in graph:
        follower.serve()  # arrays that it reads are others by now
    return True
