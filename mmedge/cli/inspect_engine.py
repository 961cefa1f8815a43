"""``mmedge inspect`` of an engine file."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from mmedge.cli.output import out

_ORIGINS = {
    "unknown": "of unknown origin: it is not of your engine cache, nothing vouches for it. TensorRT alone can read it, "
    "on the GPU that it was built for; an engine is code: load none that you did not build.",
    "changed": "not the file that was built: its hash differs. It will be built again when it is needed.",
}


def print_engine(document: dict[str, Any]) -> None:
    """Print what ``describe_plan`` knows."""
    out.print(f"{document['file']}: an engine of {document['bytes'] / 1000:.0f} kB", highlight=False, markup=False)
    if document["origin"] in _ORIGINS:
        out.print(_ORIGINS[document["origin"]], highlight=False, markup=False)
    if "key" not in document:
        return
    build, verdict = document["build"], document["verdict"]
    facts = [
        f"built by {document['built']} in {build['seconds']:.1f} s, {build['typing']}ly typed",
        f"of an ONNX file with sha256 {document['key']['variant_sha256']}",
    ]
    if build["quantized_layers"]:
        facts.append(f"{build['int8_layers']} of {build['quantized_layers']} quantised products run in int8")
    if build["float_nodes"]:
        facts.append(f"in float: {', '.join(build['float_nodes'])}")
    if build["boundaries"]:
        facts.append(f"between int8 and float: {'; '.join(build['boundaries'])}")
    if build["dla_layers"]:
        facts.append(f"on DLA {build['options']['dla_core']}: {', '.join(build['dla_layers'])}")
        facts.append(f"on the GPU: {', '.join(build['gpu_layers']) or 'nothing'}")
    if verdict is None:
        facts.append("never run on its device")
    elif verdict["error"]:
        facts.append(verdict["error"])
    else:
        took = "not timed" if verdict["run_ms"] is None else f"{verdict['run_ms']:.3f} ms a run"
        facts.append(f"passed its self-test, {took}")
    for line in facts:
        out.print(line, highlight=False, markup=False)
    if not document["layers"]:
        out.print("the builder's log lists no layers", highlight=False)
        return
    table = Table(title=f"{len(document['layers'])} layers")
    for heading in ("layer", "reads", "writes", "of the ONNX nodes"):
        table.add_column(heading, overflow="fold")
    for layer in document["layers"]:
        kind = f"{layer['kind']} (int8)" if layer["int8"] else layer["kind"]
        table.add_row(kind, ", ".join(layer["reads"]), ", ".join(layer["writes"]), ", ".join(layer["nodes"]))
    out.print(table)
