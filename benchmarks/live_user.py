"""The user's program of ``benchmarks/live.py``: as small as one that iterates a pipeline can be.

Usage: ``python -m benchmarks.live_user CAMERA MICROPHONE BUNDLE [--busy]``.
"""

from __future__ import annotations

import sys

from benchmarks.partners.telling import Told
from mmedge import MmedgeError, Pipeline
from mmedge.errors import FrameExpiredError


def main(camera: str, microphone: str, bundle: str, *, busy: bool) -> None:
    inputs = {"image": camera, "audio": microphone}
    with Pipeline(bundle, inputs, backend="onnxruntime") as pipe:
        told = Told(busy=busy)
        for result in pipe:
            if told.over.is_set():
                break
            if told.answered(result.t_ns) and all(result.present[name] for name in inputs):
                try:
                    picture = result.frame("image")
                except FrameExpiredError:
                    continue
                told.learn(result.t_ns, picture.data[: picture.height, : picture.width])
    told.tell()


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3], busy="--busy" in sys.argv)
    except MmedgeError as error:
        sys.exit(str(error))
