"""Figures of a run, scraped over HTTP and read by Prometheus's own parser."""

from __future__ import annotations

import socket
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.errors import ConfigError
from mmedge.sinks import make_sink, metrics
from mmedge.sinks.metrics import MetricsSink
from tests.conftest import WriteClip
from tests.processes import until
from tests.tiny import tiny_bundle

parser = pytest.importorskip("prometheus_client.parser")
pytestmark = pytest.mark.parallel


def scrape(port: int) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return sample name -> labels -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_scrape_says_what_the_statistics_say(tmp_path: Path, write_clip: WriteClip) -> None:
    clip = str(write_clip(sound=np.ones((1, 8000), np.float32) / 4))
    sink = make_sink("metrics:0")
    assert isinstance(sink, MetricsSink)
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with mmedge.Pipeline(bundle, {"image": clip, "audio": clip}, sinks=[sink], latency="offline") as pipe:
        pipe.run()
        found, statistics = scrape(sink.port), pipe.statistics
    assert found["mmedge_results_total"] == {(): 25}
    assert found["mmedge_triggers_total"] == {(): statistics.triggers}
    assert sum(n for key, n in found["mmedge_answers_total"].items() if ("task", "scene") in key) <= 25
    assert found["mmedge_build_info"] == {
        (("bundle", "tiny"), ("evidence", statistics.evidence), ("version", mmedge.__version__)): 1
    }
    assert found["mmedge_sink_written_results_total"] == {(("sink", "MetricsSink"),): 25}
    assert sum(found["mmedge_state"].values()) == 1
    assert sum(found["mmedge_input_state"].values()) == 2
    buckets = {dict(key)["le"]: n for key, n in found["mmedge_latency_seconds_bucket"].items() if of(key, "end_to_end")}
    counts = [buckets[edge] for edge in sorted(buckets, key=float)]
    assert counts == sorted(counts)
    assert counts[-1] == buckets["+Inf"] == statistics.end_to_end.n == 25
    # Half of the results lie at or below the bucket's edge that holds the median.
    median_s = statistics.end_to_end.percentile_ms(50) / 1e3
    above = next(n for edge, n in sorted(buckets.items(), key=lambda item: float(item[0])) if float(edge) >= median_s)
    assert above >= 13
    total_s = next(v for key, v in found["mmedge_latency_seconds_sum"].items() if of(key, "end_to_end"))
    assert total_s == pytest.approx(statistics.end_to_end.summary().mean * 25 / 1e3)
    assert found["mmedge_latency_seconds_count"][(("step", "received"),)] == 25
    assert not [name for name in found if name.endswith(("_ms", "_ns", "_ms_total"))]
    with pytest.raises(OSError):
        scrape(sink.port)  # it ends with the run


def of(key: tuple[tuple[str, str], ...], step: str) -> bool:
    return ("step", step) in key


def test_this_machine_alone_may_read_unless_a_host_is_named_and_a_taken_port_is_said() -> None:
    own, open_to_all = make_sink("metrics:0"), make_sink("metrics:0.0.0.0:0")
    hosts: list[Any] = [each._server.server_address[0] for each in (own, open_to_all)]  # type: ignore[attr-defined]
    assert hosts == ["127.0.0.1", "0.0.0.0"]
    with pytest.raises(ConfigError, match="already in use") as error:
        make_sink(f"metrics:{own.port}")  # type: ignore[attr-defined]
    assert "another port" in str(error.value.fix)
    with socket.create_connection(("127.0.0.1", own.port)):  # type: ignore[attr-defined]
        assert scrape(own.port)["mmedge_build_info"]  # type: ignore[attr-defined]  # who asks nothing holds nobody
    own.close()
    open_to_all.close()


def test_who_asks_for_nothing_keeps_no_thread(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics, "_PATIENCE_S", 0.5)
    own: Any = make_sink("metrics:0")
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", own.port))).sendall(b"GET /met")
        assert scrape(own.port)["mmedge_build_info"]
        assert until(lambda: threading.active_count() <= before, 60)
    own.close()
    assert capfd.readouterr().err == ""
