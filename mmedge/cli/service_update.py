"""``mmedge service update NAME BUNDLE``: another bundle for a service, which goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from mmedge.bundle import load
from mmedge.cli.output import err, print_json
from mmedge.errors import CheckError, ConfigError, DeviceError
from mmedge.files import replacing
from mmedge.fusion import verify_bundle
from mmedge.pipeline.spec import PUSH, RunSpec
from mmedge.pipeline.swap import check_swap
from mmedge.service.systemd import unit_name
from mmedge.service.unit import served


def update(words: Sequence[str], units: Path, *, allow: Sequence[str], json: bool) -> None:
    """Check a bundle against the one that a service runs, put it in its place on the disk, and have it reloaded.

    The one that was there is kept beside it, as ``NAME.mmedge.before``.

    Args:
        words: Name of the service, path of the new bundle.
        units: Folder of the unit.
        allow: Modules whose functions the bundle may call, for its self-test.
        json: Whether to print one JSON document.

    Raises:
        ConfigError: If the two do not fit together, or a file cannot be read or written.
        CheckError: If the new bundle fails its self-test.
        DeviceError: If the service cannot be reloaded.
    """
    if len(words) != 2:
        fix = "mmedge service update NAME BUNDLE"
        raise ConfigError(
            f"update takes a name and a bundle, got {list(words)}", where="mmedge service update", fix=fix
        )
    name, path = words[0], Path(words[1])
    unit = units / f"mmedge-{unit_name(name)}.service"
    try:
        place, inputs = served(unit.read_text(encoding="utf-8"), str(unit))
    except OSError as error:
        fix = "name it as `mmedge service --name` did; by default it is the bundle's name"
        raise ConfigError(f"there is no such service: {error.strerror}", where=str(unit), fix=fix) from error
    with load(path) as new, load(place) as old:
        check_swap(RunSpec(bundle=str(path), inputs=dict.fromkeys(inputs, PUSH)), old.manifest, new.manifest)
        failed = [row for row in verify_bundle(new, allow=allow) if row["error"]]
        if failed:
            told = ", ".join(f"{row['stage']} {row['target']} {row['precision']}" for row in failed)
            fix = f"run `mmedge verify {quote(str(path))}`"
            raise CheckError("the new bundle fails its self-test, and the old one stays", where=told, fix=fix)
        before, named = place.with_name(f"{place.name}.before"), new.name
        try:
            before.unlink(missing_ok=True)
            os.link(place, before)
            with replacing(place, mode=0o644) as file:
                file.write(path.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"the bundle cannot be replaced: {error.strerror}",
                where=str(place),
                fix="run it as root; a bundle that is a folder must become a file first",
            ) from error
    try:
        subprocess.run(["systemctl", "reload", unit.name], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise DeviceError(
            f"the new bundle is in place, but the service was not reloaded: {said.strip()}",
            where=unit.name,
            fix=f"systemctl reload-or-restart {quote(unit.name)}",
        ) from error
    steps = [
        f"next: journalctl -u {quote(unit.name)}, which says whether it has passed its trial",
        f"      if it was put back: mv {quote(str(before))} {quote(str(place))}",
    ]
    if json:
        document = {"schema": "mmedge.service-update/1", "unit": unit.name, "bundle": named, "before": str(before)}
        print_json({**document, "next": steps})
        return
    for line in (f"{unit.name} reloads {place}: '{named}'", *steps):
        err.print(line, highlight=False, markup=False, soft_wrap=True)
