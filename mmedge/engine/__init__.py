"""Networks compiled for this device: ONNX Runtime, TensorRT."""

from typing import TYPE_CHECKING

from mmedge.lazy import lazily

if TYPE_CHECKING:
    from mmedge.engine.base import Engine, EngineBase
    from mmedge.engine.load import load_engine

__all__ = ["Engine", "EngineBase", "load_engine"]

_HOMES = {
    "Engine": "mmedge.engine.base",
    "EngineBase": "mmedge.engine.base",
    "load_engine": "mmedge.engine.load",
}


def __getattr__(name: str) -> object:
    return lazily(__name__, _HOMES, name)
