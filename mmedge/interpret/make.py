"""The interpreter of a task."""

from __future__ import annotations

from mmedge.bundle.manifest import Task
from mmedge.errors import EngineError
from mmedge.interpret.detection import Detector, ToPicture
from mmedge.interpret.task import Classification, Interpreter, Verification


def make_interpreter(
    name: str, task: Task, labels: tuple[str, ...], to_picture: ToPicture | None = None
) -> Interpreter:
    """Return the interpreter of a task's kind.

    Args:
        name: Of the task, for messages.
        task: Its manifest entry.
        labels: What its scores are of.
        to_picture: Of a detection: maps corners [n, 4] from pixels of the network's input to 0..1 of the camera's
            picture, in place.

    Raises:
        EngineError: If a verification has other than two labels, or a detection no picture.

    Example:
        >>> import numpy as np
        >>> from mmedge.types import Snapshot
        >>> task = Task(kind="classification", output="net.y", labels="labels.txt", threshold=0.5)
        >>> seen = Snapshot(t_ns=0, seq=0, present={"image": True})
        >>> print(make_interpreter("pet", task, ("cat", "dog"))(np.array([[3.0, 1.0]], np.float32), seen))
        cat 0.88
    """
    if task.kind == "classification":
        return Classification(name, task, labels)
    if task.kind == "detection":
        if to_picture is None:
            raise EngineError("a detection needs the geometry of its image input", where=f"task '{name}'")
        return Detector(name, task, labels, to_picture)
    if len(labels) != 2:
        raise EngineError(
            f"verification needs 2 labels, got {len(labels)}", where=f"task '{name}'", fix="use two labels: no, yes"
        )
    return Verification(name, task, labels)
