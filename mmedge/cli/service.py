"""``mmedge service``: a run as a service of systemd."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from shlex import join, quote
from typing import Annotated

import typer

from mmedge.bundle import load
from mmedge.cli.addresses import typed
from mmedge.cli.output import Allow, AudioSource, ImageSource, Inputs, Json, Sinks, TextSource, err, print_json
from mmedge.cli.run import parse_inputs
from mmedge.errors import ConfigError
from mmedge.files import private_folder, replacing
from mmedge.fusion.consent import Consent, check_consent, needed_code
from mmedge.pipeline.check import check_run
from mmedge.pipeline.spec import RunSpec
from mmedge.service.unit import SECRETS, UNITS, Unit
from mmedge.sinks import check_sink

_OWN = ("input", "image", "audio", "text", "sink", "allow")  # options that stand before the --


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")],
    options: Annotated[
        list[str], typer.Argument(metavar="[-- OPTIONS]", help="Further options of `mmedge run`, after --.")
    ] = [],
    input: Inputs = [],
    image: ImageSource = None,
    audio: AudioSource = None,
    text: TextSource = None,
    sink: Sinks = [],
    allow: Allow = [],
    name: Annotated[str | None, typer.Option(help="Name of the service; the bundle's by default.")] = None,
    memory: Annotated[
        str, typer.Option(help="The most memory it may use: 2G, 800M, or a share of the machine's.")
    ] = "75%",
    watchdog: Annotated[
        float, typer.Option(metavar="SECONDS", help="Start it again after this time without a result; 0: never.")
    ] = 30.0,
    install: Annotated[bool, typer.Option("--install", help="Write the unit instead of printing it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a unit of that name.")] = False,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where --install writes the unit.")] = UNITS,
    secrets: Annotated[
        Path, typer.Option(metavar="DIR", help="Where --install writes addresses that hold a secret.")
    ] = SECRETS,
    json: Json = False,
) -> None:
    """Print a unit that runs a bundle with systemd, in a room of its own; with --install, write it.

    `mmedge service update NAME BUNDLE` puts another bundle into the service NAME, which goes on.
    """
    if bundle == Path("update") and not bundle.exists():
        from mmedge.cli.service_update import update

        update(options, to, allow=allow, json=json)
        return
    with load(bundle) as opened:
        _check_options(bundle, options)
        consent = Consent(allow, opened.path)
        check_consent(opened.manifest, consent)
        inputs = parse_inputs(opened, input, {"image": image, "audio": audio, "text": text})
        check_run(RunSpec(bundle=str(opened.path), inputs=inputs), opened.manifest)
        sinks = [typed(each, "--sink") for each in sink]
        for each in sinks:
            check_sink(each, opened.tasks)
        needed = needed_code(opened.manifest, Consent()).values()
        projects = dict.fromkeys(path for target in needed for path in consent.projects_for(target))
        modules = [entry for entry in allow if not entry.endswith(".toml")]
        own = inputs.keys() - {n for n, spec in opened.inputs.items() if getattr(spec, "shares", None) in inputs}
        unit = Unit(
            name=opened.name if name is None else name,
            bundle=bundle,
            inputs={n: address for n, address in inputs.items() if n in own},
            sinks=[each.reveal() for each in sinks],
            projects=list(projects),
            options=[*(word for module in modules for word in ("--allow-callable", module)), *options],
            memory=memory,
            watchdog_s=watchdog or None,
            secrets=secrets,
        )
    written = _install(unit, to, force=force) if install else []
    hints, steps = unit.hints, _next(unit, to, bundle, installed=install)
    if not install:
        hints += [
            f"an address holds a secret: --install writes it to {path}, for root alone" for path in unit.credentials
        ]
    if json:
        print_json(
            {
                "schema": "mmedge.service/1",
                "name": unit.name,
                "file": unit.file,
                "unit": unit.text,
                "written": list(map(str, written)),
                "credentials": list(map(str, unit.credentials)),
                "hints": hints,
                "next": steps,
            }
        )
        return
    if not install:
        sys.stdout.write(unit.text)
        sys.stdout.flush()
    for line in (*(f"wrote {path}" for path in written), *(f"hint: {hint}" for hint in hints), *steps):
        err.print(line, highlight=False, markup=False, soft_wrap=True)


def _check_options(bundle: Path, options: list[str]) -> None:
    """Have the parser of ``mmedge run`` read the further options.

    Raises:
        click.UsageError: If it does not know them.
        ConfigError: If one of them has its place before the ``--``.
    """
    parsed = import_module("mmedge.cli").app_command("run").make_context("mmedge run", [str(bundle), *options])
    for option in _OWN:
        if parsed.params[option]:
            raise ConfigError(
                "inputs, sinks and callables are options of `mmedge service` itself",
                where=f"-- {join(options)}",
                fix=f"put --{option.replace('allow', 'allow-callable')} before the --",
            )


def _install(unit: Unit, folder: Path, *, force: bool) -> list[Path]:
    """Write the unit for all to read, and addresses with a secret for root alone; return what was written."""
    path, text = folder / unit.file, unit.text.encode()
    try:
        if path.exists() and path.read_bytes() != text and not force:
            raise ConfigError(
                "another unit of this name is there", where=str(path), fix="use --force to replace it, or --name NAME"
            )
        written = []
        for secret, address in unit.credentials.items():
            private_folder(secret.parent)
            with replacing(secret, mode=0o600) as file:
                file.write(address.reveal().encode("utf-8", "surrogateescape") + b"\n")
            written.append(secret)
        with replacing(path, mode=0o644) as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"the unit cannot be written: {error.strerror}",
            where=str(error.filename or path),
            fix=f"run it as root: sudo {quote(sys.executable)} -m mmedge service ... --install",
        ) from error
    return [*written, path]


def _next(unit: Unit, folder: Path, bundle: Path, *, installed: bool) -> list[str]:
    if not installed:
        return [f"next: mmedge service {quote(str(bundle))} ... --install"]
    name = quote(unit.file)
    return [
        f"next: sudo systemd-analyze verify {quote(str(folder / unit.file))}",
        f"      sudo systemctl daemon-reload && sudo systemctl enable --now {name}",
        f"      systemctl status {name}; journalctl -fu {name}",
    ]
