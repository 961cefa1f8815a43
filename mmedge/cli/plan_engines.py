"""``mmedge inspect --plan``: which engines serve the stages on this machine, as far as is known without loading one."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mmedge.bundle import Bundle, Variant
from mmedge.cli.output import out


def print_engines(bundle: Bundle, fed: Collection[str]) -> None:
    """Print what a run with ``backend="auto"`` tries for each network of a bundle, best first.

    Args:
        bundle: An open bundle.
        fed: The inputs that have a source.
    """
    lines = list(engine_lines(bundle, fed))
    if not lines:
        return
    out.print("engines on this machine: the first that passes its self-test", highlight=False, markup=False)
    for line in lines:
        out.print(f"  {line}", highlight=False, markup=False)


def engine_lines(bundle: Bundle, fed: Collection[str]) -> Iterable[str]:
    """Yield a line for each network: backends and precisions in the order in which a run tries them."""
    from mmedge.fusion.choice import serving
    from mmedge.fusion.unfed import unfed_stages

    unfed = unfed_stages(bundle.manifest, fed)
    for stage, forms in serving(bundle, "auto", None).items():
        if stage in unfed:
            yield f"{stage}: none, since no input with a source feeds it"
        elif forms:
            yield f"{stage}: {', else '.join(_form(bundle, backend, variant) for backend, variant in forms)}"
        else:
            yield f"{stage}: none of its files runs here; fix: mmedge doctor says what is missing"


def _form(bundle: Bundle, backend: str, variant: Variant) -> str:
    from mmedge.fusion.doors import DOORS

    door = DOORS.get(backend)
    built = door is None or door.find(bundle, variant).built
    return f"{backend} {variant.precision}" + ("" if built else " (not built yet)")
