"""Write docs/hardware.md from the attestations in attestations/, and raise docs/evidence.toml by what they show.

python scripts/hardware.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmedge.bench.attestation import read
from mmedge.bench.checklist import shown
from mmedge.forecast import known_boards

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGE, CLAIMS = ROOT / "docs" / "hardware.md", ROOT / "docs" / "evidence.toml"
BOARDS = tuple(board.models for board in known_boards().values())  # one that nobody has run has a row that says so
_HEAD = """# Hardware: what boards measured

Written by `python scripts/hardware.py` from the attestations in the folder `attestations/` of the repository, each
valid and as it was sent: its hash fits. Make one on your board and send it; there is no host, user or path in it.

<!-- needs: a quiet machine, minutes -->
```bash
mmedge attest digits.mmedge --board --input image=0 --input audio=mic://default
mmedge attest --check attestation.json
```

It runs the doctor, builds the engines, tests every network on its golden inputs, measures for half a minute and looks
for the knee, as [bench](bench.md) describes; probes cameras and microphones, calibrates one of each, and runs for three
minutes on those that are named. At the end it says what is [still missing](jetson.md#what-only-a-board-can-show). What
an attestation of a Jetson shows, the same script writes into `docs/evidence.toml`. Times are ms.

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
        f"| {models[0]} | nobody has run it yet{' |' * 9}"
        for models in BOARDS
        if not any(machine.startswith(models) for machine in ran)
    ]
    return _HEAD + "\n".join(rows) + "\n"


def raise_claims(text: str, documents: Mapping[str, dict[str, Any]]) -> tuple[str, list[str]]:
    """Raise to ``jetson`` what an attestation shows: all lines of the checklist that a claim's ``jetson`` names.

    Args:
        text: Of docs/evidence.toml.
        documents: File name -> attestation.

    Returns:
        The new text, and the names of the claims that were raised.
    """
    raised = []
    for name, claim in tomllib.loads(text)["claims"].items():
        lines = claim.get("jetson")
        file = next((file for file, document in documents.items() if lines and shown(document, lines)), None)
        if file is None or claim["evidence"] == "jetson":
            continue
        new = f'[claims.{name}]\nevidence = "jetson"\nshown_by = "attestations/{file}"\n'
        text, count = re.subn(
            rf'\[claims\.{name}\]\nevidence = "[^"\n]*"\nshown_by = "[^"\n]*"\n', lambda _, new=new: new, text
        )
        if count != 1:
            raise ValueError(f"claim '{name}' does not begin with evidence and shown_by")
        raised.append(name)
    return text, raised


def main() -> None:
    """Write the page and the claims."""
    documents = {path.name: read(path) for path in sorted((ROOT / "attestations").glob("*.json"))}
    PAGE.write_text(page(documents.values()), encoding="utf-8")
    text, raised = raise_claims(CLAIMS.read_text(encoding="utf-8"), documents)
    CLAIMS.write_text(text, encoding="utf-8")
    print(PAGE)
    if raised:
        print(f"raised to 'jetson': {', '.join(raised)}; README.md may say so now")


if __name__ == "__main__":
    main()
