"""A TensorRT that has the names of one version and nothing else: who asks for another is told. It computes nothing.

The names were read from NVIDIA's own bindings (`tensorrt-cu12-bindings`, `tensorrt-cu13-bindings`), loaded without
their libraries, and of TensorRT-RTX. What runs through this is API-checked, not tested.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

TABLES: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "recorded" / "tensorrt_symbols.json").read_text()
)
VERSIONS = list(TABLES)

# Method or property -> the class of what it returns; a list is what it returns as it is.
_RETURNS: dict[tuple[str, str], Any] = {
    ("Builder", "create_network"): "INetworkDefinition",
    ("Builder", "create_builder_config"): "IBuilderConfig",
    ("Builder", "create_optimization_profile"): "IOptimizationProfile",
    ("Builder", "build_serialized_network"): [b"plan"],
    ("OnnxParser", "supports_model_v2"): [True],
    ("OnnxParser", "parse"): [True],
    ("INetworkDefinition", "get_input"): "ITensor",
    ("INetworkDefinition", "get_layer"): "ILayer",
    ("ILayer", "get_input"): "ITensor",
    ("ILayer", "get_output"): "ITensor",
    ("ITensor", "get_dimension_name"): ["batch"],
    ("IBuilderConfig", "create_timing_cache"): "ITimingCache",
    ("IBuilderConfig", "get_timing_cache"): "ITimingCache",
    ("IBuilderConfig", "set_timing_cache"): [True],
    ("IBuilderConfig", "set_compute_capability"): [True],
    ("ITimingCache", "serialize"): [b"timings"],
}
_VALUES: dict[tuple[str, str], Any] = {
    ("INetworkDefinition", "num_inputs"): 1,
    ("INetworkDefinition", "num_layers"): 1,
    ("ILayer", "num_inputs"): 2,
    ("ILayer", "num_outputs"): 1,
    ("ILayer", "name"): "conv0",
    ("ILayer", "metadata"): "[ONNX Layer: conv0]",
    ("ITensor", "name"): "x",
    ("ITensor", "shape"): (-1, 3),
    ("ITensor", "is_shape_tensor"): False,
    ("OnnxParser", "num_errors"): 0,
    ("Builder", "num_DLA_cores"): 2,
}


class AbsentError(AttributeError):
    """This version has no such name."""


class _Flag(int):
    pass


def stand_in(version: str) -> ModuleType:
    """Return a module with the names of a version; ``used`` of it holds those that were asked for."""
    table, used = TABLES[version], set[str]()
    classes: dict[str, type] = {}

    def member(owner: str, name: str) -> Any:
        used.add(f"{owner}.{name}")
        if (owner, name) in _VALUES:
            return _VALUES[owner, name]
        if (owner, name) == ("ILayer", "type"):
            return classes["LayerType"].CONVOLUTION  # type: ignore[attr-defined]
        made = _RETURNS.get((owner, name))
        return lambda *_, **__: made[0] if isinstance(made, list) else None if made is None else classes[made]()

    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            raise AbsentError(f"TensorRT {version} has no {cls.__name__}.{name}")

    def make(owner: str, names: list[str]) -> type:
        is_enum = {"name", "value"} <= set(names)

        def absent(self: object, name: str) -> Any:
            if name in names:
                return member(owner, name)
            raise AbsentError(f"TensorRT {version} has no {owner}.{name}")

        def put(self: object, name: str, value: object) -> None:
            if name not in names and not name.startswith("_"):
                raise AbsentError(f"TensorRT {version} has no {owner}.{name}")
            used.add(f"{owner}.{name}")

        body: dict[str, Any] = {"__init__": lambda self, *_: None, "__setattr__": put}
        if is_enum:
            body |= {name: _Flag(number) for number, name in enumerate(names)}
        else:
            # On the class, too, for hasattr; the instance's own is asked first.
            body |= {name: property(lambda self, name=name: member(owner, name)) for name in names}
            body["__getattr__"] = absent
        return Meta(owner, (), body)

    classes.update({owner: make(owner, names.split()) for owner, names in table.items()})

    class Module(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise AbsentError(f"TensorRT {version} has no {name}")

    module = Module("tensorrt")
    vars(module).update(classes, __version__=version, used=used)
    return module
