"""The recorder of a run: most runs have none, and load nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmedge.bundle import Bundle
from mmedge.fusion import StageGraph
from mmedge.pipeline.spec import RunSpec
from mmedge.recording.event_log import Rules as Rules
from mmedge.recording.writer import Recorder, make_header


def make_recorder(
    spec: RunSpec,
    bundle: Bundle,
    graph: StageGraph,
    attached: Mapping[str, bool],
    used: Rules,
    times_ns: tuple[int, int],
) -> Recorder:
    """Return what records a run.

    Args:
        spec: What runs; its ``record`` is the folder.
        bundle: The bundle.
        graph: Its stages, loaded.
        attached: Whether the source of each input is live.
        used: The rules of the synchroniser.
        times_ns: The start of the run on CLOCK_MONOTONIC, and on the wall clock.
    """
    assert spec.record is not None
    started_ns, unix_ns = times_ns
    header = make_header(
        spec.inputs,
        attached,
        bundle.manifest.inputs,
        started_ns=started_ns,
        unix_ns=unix_ns,
        bundle=bundle,
        used=used,
        served=graph.served,
        lossless=spec.latency == "offline",
        video=spec.video,
    )
    return Recorder(Path(spec.record), header, spec.record_privacy)
