"""Networks compiled for this device: ONNX Runtime, TensorRT."""

from mmedge.engine.base import Engine, EngineBase
from mmedge.engine.load import load_engine

__all__ = ["Engine", "EngineBase", "load_engine"]
