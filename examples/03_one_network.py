"""One ONNX network without a pipeline: the engine owns its arrays, you fill and read them.

Run: python examples/03_one_network.py [MODEL.onnx]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mmedge

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "image_encoder.onnx"
        if len(sys.argv) == 1:
            with mmedge.load(ASSETS / "digits.mmedge") as bundle:
                path.write_bytes(bundle.read("image_encoder.cpu.fp32.onnx"))
        with mmedge.load_engine(path) as engine:
            for name, array in engine.inputs.items():
                print(f"in  {name} {array.dtype} {list(array.shape)}")
                array[...] = np.random.default_rng(0).normal(size=array.shape).astype(array.dtype)
            begin = time.perf_counter()
            for _ in range(100):
                engine.run()
            print(f"{engine.backend}: {(time.perf_counter() - begin) * 10:.2f} ms a run")
            for name, array in engine.outputs.items():
                print(f"out {name} {array.dtype} {list(array.shape)} mean {array.mean():.3f}")


if __name__ == "__main__":
    main()
