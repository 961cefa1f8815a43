"""Side by side with peers: each module measures one thing; ``python -m benchmarks`` runs them all."""

import mmedge  # noqa: F401  before any peer is imported: it switches telemetry off
