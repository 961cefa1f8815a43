"""Write docs/hardware.md from the attestations in attestations/: python scripts/hardware.py."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmedge.bench.attestation import read

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "hardware.md"
# What /proc/device-tree/model begins with; a board that nobody has run has a row that says so.
BOARDS = (
    "NVIDIA Jetson Orin Nano",
    "NVIDIA Jetson Orin NX",
    "NVIDIA Jetson AGX Orin",
    "NVIDIA Jetson AGX Thor",
)
_HEAD = """# Hardware: what boards measured

Written by `python scripts/hardware.py` from the attestations in the folder `attestations/` of the repository, each
valid and as it was sent: its hash fits. Make one on your board and send it; there is no host, user or path in it.

<!-- needs: a quiet machine, minutes -->
```bash
mmedge attest digits.mmedge --sweep 10:240
mmedge attest --check attestation.json
```

It runs the doctor, builds the engines, tests every network on its golden inputs, measures for half a minute and looks
for the knee, as [bench](bench.md) describes. Times are ms.

| board | bundle | backends | evidence | end to end p50 | p99 | n | runtime share | knee, a second | mJ a result |
|---|---|---|---|---|---|---|---|---|---|
"""


def row(document: dict[str, Any]) -> str:
    """Return the row of an attestation."""
    report, knee = document["bench"], document["sweep"]
    conditions, figures = report["conditions"], report["latency_ms"]["end_to_end"]
    share, power = report["runtime_share"], conditions.get("power", {})
    cells = [
        conditions["machine"],
        document["bundle"]["name"],
        ", ".join(sorted(set(conditions["backends"].values()))),
        report["evidence"],
        figures["p50"],
        figures["p99"],
        figures["n"],
        None if share is None else share["p50"],
        None if knee is None else knee["knee_hz"],
        power.get("mj_per_result"),
    ]
    return f"| {' | '.join('-' if cell is None else str(cell) for cell in cells)} |"


def page(documents: Iterable[dict[str, Any]]) -> str:
    """Return the page: a row for each attestation, then the boards that nobody has run."""
    found = list(documents)
    ran = [document["bench"]["conditions"]["machine"] for document in found]
    rows = [row(document) for document in found]
    rows += [
        f"| {board} | nobody has run it yet{' |' * 9}"
        for board in BOARDS
        if not any(machine.startswith(board) for machine in ran)
    ]
    return _HEAD + "\n".join(rows) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(read(path) for path in sorted((ROOT / "attestations").glob("*.json"))), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
