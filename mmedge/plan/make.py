"""The plan of one run, made of a bundle's manifest and of which inputs have a source; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.bundle.manifest import Manifest
from mmedge.bundle.masks import validated_masks
from mmedge.plan.check import check_inputs, check_live
from mmedge.plan.parts import Plan
from mmedge.plan.presets import Preset, apply_preset
from mmedge.plan.stages import plan_stages
from mmedge.plan.sync import plan_sync
from mmedge.types import Latency


def make_plan(
    manifest: Manifest,
    attached: Mapping[str, bool],
    *,
    latency: Latency = "balanced",
    manifest_sha256: str = "",
    preset: Preset | None = None,
) -> Plan:
    """Return everything that a run does.

    Args:
        manifest: Of the bundle.
        attached: Name -> whether its source is live, for the inputs that have a source.
        latency: The preset: how long a trigger waits, and for what.
        manifest_sha256: Hash of the manifest.
        preset: What ``apply_preset`` gave for it, where that is known already.

    Raises:
        ConfigError: If the bundle was not validated with these inputs, nothing would make a trigger, or ``offline``
            would wait for a live source.
        BundleError: If the stages form a cycle, or a stream cannot be heard as the manifest says.

    Example:
        >>> plan = make_plan(bundle.manifest, {"image": True, "audio": True})  # doctest: +SKIP
        >>> [stage.name for stage in plan.stages]  # doctest: +SKIP
        ['image_encoder', 'audio_encoder', 'fusion']
    """
    check_inputs(manifest, attached)
    check_live(latency, attached)
    rules, missing = preset or apply_preset(latency, manifest.sync, manifest.missing, manifest.inputs)
    return Plan(
        bundle=manifest.name,
        manifest_sha256=manifest_sha256,
        latency=latency,
        inputs=manifest.inputs,
        sync=plan_sync(manifest.inputs, attached, missing, rules, lossless=latency == "offline"),
        stages=plan_stages(manifest.stages, manifest.inputs),
        tasks=manifest.tasks,
        outputs=manifest.outputs,
        masks=tuple(sorted(tuple(n for n in manifest.inputs if n in mask) for mask in validated_masks(manifest))),
    )
