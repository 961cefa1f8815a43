"""What an export did and measured: for people on the terminal, as one JSON document, and as one HTML file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

from mmedge.errors import ConfigError
from mmedge.files import replacing
from mmedge.forecast import Forecast
from mmedge.forecast.seal import sealed

from .int8.compare import Comparison
from .onnx.onnx_models import OnnxModels
from .report import QuantizationReport, quantization_report
from .smoke import QUANTISED_KINDS, Smoke
from .work import QUANTISED, Work

_PATH = re.compile(r"(?<![\w.:/])(?:/[^\s/'\",;:]+)+/([^\s/'\",;:]+)")  # of a node's name, too: those are no folders

if TYPE_CHECKING:
    from .measure import Measurement


@dataclass(kw_only=True)
class RunReport:
    """What a run of the steps did and measured.

    Attributes:
        folder: Where the results of the last step are.
        name: Of the recipe.
        path: The bundle, None if the run stopped before.
        seconds: Step -> how long it took.
        cached: Steps whose result was there already.
        licence: Of the recipe.
        places: Folders of this machine, which reports do not name.
        warnings: What was asked for and is not as asked, and whatever else deserves a look.
        smoke: What TensorRT built of the variants; None where it was not asked.
        forecasts: What the bundle is expected to take on boards, said before it runs on one.
    """

    folder: Path
    name: str = ""
    licence: str = ""
    places: tuple[str, ...] = ()
    path: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, object] = field(default_factory=dict)
    onnx: OnnxModels | None = None
    quantizations: tuple[QuantizationReport, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    measurement: Measurement | None = None
    smoke: Smoke | None = None
    forecasts: tuple[Forecast, ...] = ()

    def take(self, work: Work) -> None:
        """Take up what the steps have given so far."""
        results = work.results
        if "onnx" in results:
            self.onnx = work.fp32
        done = [step for step in QUANTISED if step in results]
        if len(done) > len(self.quantizations):
            self.quantizations = tuple(quantization_report(work.fp32, results[step]) for step in done)
        self.comparisons = results.get("compare", ())
        self.measurement = results.get("measure")
        self.smoke = results.get("smoke")

    @property
    def quantization(self) -> QuantizationReport | None:
        """Of INT8, or else of the first precision that is quantised."""
        return next(iter(self.quantizations), None)

    @property
    def comparison(self) -> Comparison | None:
        """Of INT8 as CPUs get it, or else of the first precision that is quantised."""
        return next(iter(self.comparisons), None)

    def to_dict(self) -> dict[str, object]:
        """Return the document of schema ``mmedge.export/1``; it names neither machine nor user, nor their folders."""
        document = {
            "schema": "mmedge.export/1",
            "name": self.name,
            "licence": self.licence,
            "bundle": None if self.path is None else str(self.path),
            "folder": self.folder.name,
            "seconds": {step: round(value, 2) for step, value in self.seconds.items()},
            "cached": self.cached,
            "warnings": self.warnings,
            "provenance": self.provenance,
            "parity": None if self.onnx is None else msgspec.to_builtins(self.onnx.parity),
            "quantization": None if self.quantization is None else self.quantization.to_dict(),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "more_quantizations": [part.to_dict() for part in self.quantizations[1:]],
            "more_comparisons": [part.to_dict() for part in self.comparisons[1:]],
            "measurement": None if self.measurement is None else self.measurement.to_dict(),
            "smoke": None if self.smoke is None else msgspec.to_builtins(self.smoke),
            "forecast": sealed(self.forecasts) if self.forecasts else None,
        }
        return {
            key: value if key in ("bundle", "forecast") else self._without_places(value)
            for key, value in document.items()
        }

    def _without_places(self, value: Any) -> Any:
        """Return a value whose texts name no folder of this machine."""
        if isinstance(value, str):
            for place in sorted({*self.places, str(Path.cwd()), str(Path.home())}, key=len, reverse=True):
                value = value.replace(f"{place}/", "") if len(place) > 1 else value
            return _PATH.sub(lambda found: found[1] if Path(found[0]).parent.is_dir() else found[0], value)
        if isinstance(value, Mapping):
            return {key: self._without_places(part) for key, part in value.items()}
        return [self._without_places(part) for part in value] if isinstance(value, (list, tuple)) else value

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write the report as one HTML file without requests to anywhere, and as JSON beside it.

        Args:
            path: ``NAME.html``; the JSON is ``NAME.json``.

        Returns:
            Both paths.

        Raises:
            ConfigError: If they cannot be written.
            MissingDependencyError: If matplotlib is not installed, which draws the pictures.

        Example:
            >>> export.run_steps(recipe).save("digits.html")  # doctest: +SKIP
        """
        from .page import page

        html = Path(path)
        data = html.with_suffix(".json")
        document = self.to_dict() | {"bundle": None if self.path is None else self.path.name}
        try:
            html.parent.mkdir(parents=True, exist_ok=True)
            texts = page(self, document).encode(), msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
            with replacing(html, mode=0o644) as first, replacing(data, mode=0o644) as second:
                for file, text in zip((first, second), texts, strict=True):
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())  # both are on the disk before either takes its place
        except OSError as error:
            raise ConfigError(
                f"cannot write the report: {error.strerror or error}", where=str(html), fix="name another --report"
            ) from error
        return html, data

    def tables(self) -> list[Table]:
        """Return what was measured as tables."""
        found: list[Table] = []
        if self.onnx is not None and self.onnx.parity:
            table = Table(title="ONNX against torch")
            for heading in ("output", "samples", "max relative difference", "cosine"):
                table.add_column(heading, justify="left" if heading == "output" else "right")
            for row in self.onnx.parity:
                table.add_row(f"{row.stage}.{row.output}", str(row.samples), f"{row.max_rel:.1e}", f"{row.cosine:.6f}")
            found.append(table)
        found += [part.table() for part in self.quantizations] + [part.table() for part in self.comparisons]
        found += [self.measurement.table()] if self.measurement is not None else []
        if self.smoke is not None and self.smoke.rows:
            found.append(_smoke_table(self.smoke))
        return [*found, _forecast_table(self.forecasts)] if self.forecasts else found

    def print(self, console: Console) -> None:
        """Print the tables."""
        for table in self.tables():
            console.print(table)
        if self.smoke is not None and self.smoke.skipped is not None:
            console.print(f"not built: {self.smoke.skipped}", highlight=False, markup=False)
        for text in dict.fromkeys(self.warnings):
            console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)
        steps = ", ".join(f"{s} {'cached' if s in self.cached else f'{t:.1f} s'}" for s, t in self.seconds.items())
        console.print(f"{self.path or self.folder}  ({steps})", highlight=False)


def _forecast_table(forecasts: Sequence[Forecast]) -> Table:
    """Return what is expected on each board; that of a run, which nobody has made there."""
    table = Table(title=f"expected, not run: {forecasts[0].rate_hz:.4g} triggers a second")
    for heading in ("device", "end to end", "engines", "not known"):
        table.add_column(heading, justify="right" if heading in ("end to end", "engines") else "left", overflow="fold")
    for each in forecasts:
        table.add_row(each.device, each.end_to_end.told(), each.engines.told(), ", ".join(each.unknown) or "-")
    return table


def _smoke_table(smoke: Smoke) -> Table:
    table = Table(title=f"built, not run: {smoke.builder}")
    for heading in ("stage", "precision", "layers", "quantised layers", "coverage"):
        table.add_column(heading, justify="left" if heading in ("stage", "precision") else "right", overflow="fold")
    for row in smoke.rows:
        if row.problem is not None:
            table.add_row(row.stage, row.precision, "refused", "-", "-")
            continue
        share = f"{100 * row.int8_coverage:.0f} %" if row.precision in QUANTISED_KINDS else "-"
        table.add_row(row.stage, row.precision, str(row.layers), str(row.int8_layers), share)
    return table
