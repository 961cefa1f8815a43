"""Measure a bundle before you choose a board: percentiles, drops, one HTML file.

Run: python examples/04_latency_report.py [SECONDS]
"""

import sys
from pathlib import Path

import mmedge

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    report = mmedge.bench(ASSETS / "digits.mmedge", duration_s=seconds)
    for name, p in report.latency_ms.items():
        print(f"{name:14} p50 {p.p50:7.2f} ms   p99 {p.p99:7.2f} ms")
    print(f"dropped: {report.statistics.drops or 'none'}   evidence: {report.statistics.evidence}")
    print(f"wrote {report.save('bench.html')}")


if __name__ == "__main__":
    main()
