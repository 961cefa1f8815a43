"""Whether bundle, inputs and recording folder fit, before anything is started."""

from __future__ import annotations

from pathlib import Path

from mmedge.bundle.manifest import Manifest
from mmedge.pipeline.spec import RunSpec
from mmedge.plan.check import check_inputs


def check_run(spec: RunSpec, manifest: Manifest) -> None:
    """Raise ConfigError if bundle, inputs and recording folder do not fit, before anything is started."""
    check_inputs(manifest, spec.inputs)
    if spec.record is not None:
        from mmedge.recording.event_log import check_folder

        check_folder(Path(spec.record))
