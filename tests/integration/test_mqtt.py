"""Results to a real broker: killed and started again, refusing, hanging; nothing lost within the bound, none twice."""

from __future__ import annotations

import gc
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.sinks import SinkQueue, make_sink, open_sink
from mmedge.types import TaskResult
from tests.brokers import Broker, Subscriber, fresh
from tests.conftest import WriteClip
from tests.processes import until
from tests.results import STEP_NS, made
from tests.tiny import tiny_bundle

pytest.importorskip("paho.mqtt.client")
pytestmark = pytest.mark.parallel


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    started = Broker(tmp_path)
    started.start()
    yield started
    started.kill()


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    listening = Subscriber(broker.port)
    yield listening
    listening.close()


def sink(broker: Broker, options: str = "") -> Any:
    return make_sink(f"mqtt://127.0.0.1:{broker.port}/kitchen/cam{options}")


def state(one: Any) -> str:
    return str(one.report()["state"])


def numbers(lines: list[Any]) -> list[int]:
    return [line["t_ns"] // STEP_NS for line in lines]


def test_results_state_and_availability(broker: Broker, subscriber: Subscriber) -> None:
    one = sink(broker, "?discovery=homeassistant")
    assert until(lambda: state(one) == "OK", 60)
    for n in range(200):
        one.write(made(n, digit="ab"[n // 100], **{'odd "}}" name': "x"}))
    assert until(lambda: len(subscriber.of("kitchen/cam/result")) == 200, 60)
    lines = subscriber.of("kitchen/cam/result")
    assert numbers(lines) == list(range(200))
    assert len({line["id"] for line in lines}) == 200
    assert until(lambda: b'"label": "b"' in (subscriber.last("kitchen/cam/state") or b""), 60)
    assert subscriber.last("kitchen/cam/availability") == b"online"
    configs = [json.loads(p) for topic, p, _ in subscriber.messages if topic.startswith("homeassistant/sensor/")]
    assert {config["name"] for config in configs} == {"digit", 'odd "}}" name'}
    assert all(config["state_topic"] == "kitchen/cam/state" for config in configs)
    assert len({config["unique_id"] for config in configs}) == 2
    one.close()
    assert until(lambda: subscriber.last("kitchen/cam/availability") == b"offline", 60)
    later = Subscriber(broker.port, "kitchen/+/state")  # who comes later knows the newest answer
    assert until(lambda: bool(later.messages), 60)
    assert later.messages[0][2]
    assert later.of("kitchen/cam/state")[0]["tasks"]["digit"]["label"] == "b"
    later.close()


def test_nothing_is_lost_or_twice_when_the_broker_is_killed(broker: Broker, subscriber: Subscriber) -> None:
    one = sink(broker)
    assert until(lambda: state(one) == "OK", 60)
    for n in range(600):
        one.write(made(n, digit="a"))
        if n == 150:
            broker.kill()
        if n == 400:
            broker.start()
            assert subscriber.connected.wait(60)
        time.sleep(0.002)
    assert until(lambda: len(fresh(subscriber.of("kitchen/cam/result"))) >= 600 - 16, 60), one.report()
    assert until(lambda: one.report()["counters"]["spooled"] == one.report()["counters"]["unacknowledged"] == 0, 60)
    got = fresh(subscriber.of("kitchen/cam/result"))
    # What a broker without persistence has acknowledged and not yet handed on dies with it.
    missing = set(range(600)) - set(numbers(got))
    assert len(missing) <= 16
    assert all(n <= 151 for n in missing)  # how far before it hangs on the machine
    assert numbers(got) == sorted(numbers(got))
    assert one.report()["counters"]["reconnects"] >= 1
    assert one.report()["counters"]["lost_spool"] == 0
    assert subscriber.last("kitchen/cam/availability") == b"online"
    one.close()


def test_a_broker_that_hangs_holds_nobody(broker: Broker, subscriber: Subscriber) -> None:
    one = sink(broker, "?keepalive_s=1")
    queue = SinkQueue(one, "mqtt")
    assert until(lambda: state(one) == "OK", 60)
    broker.send(signal.SIGSTOP)
    began = time.monotonic()
    for n in range(150):
        queue.write(made(n, digit="a"))
    queue.settle()
    assert time.monotonic() - began < 60
    assert until(lambda: state(one) == "RECONNECTING", 60)
    assert queue.report()["reason"]
    broker.send(signal.SIGCONT)
    assert until(lambda: len(fresh(subscriber.of("kitchen/cam/result"))) == 150, 60), one.report()
    assert numbers(fresh(subscriber.of("kitchen/cam/result"))) == list(range(150))
    broker.send(signal.SIGSTOP)
    began = time.monotonic()
    queue.close()
    assert time.monotonic() - began < 60
    broker.send(signal.SIGCONT)


def test_what_a_run_could_not_deliver_is_delivered_by_the_next(broker: Broker, subscriber: Subscriber) -> None:
    broker.kill()
    one = sink(broker)
    for n in range(100):
        one.write(made(n, digit="a"))
    with pytest.raises(mmedge.errors.ConfigError, match="another run, uses the spool"):
        sink(broker)
    one.close()
    broker.start()
    assert subscriber.connected.wait(60)
    two = sink(broker)
    for n in range(100, 120):
        two.write(made(n, digit="a"))
    assert until(lambda: len(subscriber.of("kitchen/cam/result")) >= 120, 60), two.report()
    assert numbers(fresh(subscriber.of("kitchen/cam/result"))) == list(range(120))
    two.close()


@pytest.mark.parametrize("option", ["spool_mb=0", "spool=events.db"])
def test_two_sinks_share_a_topic(
    broker: Broker, subscriber: Subscriber, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broker ends a connection when another of the same name comes: two such sinks would do so for ever."""
    monkeypatch.chdir(tmp_path)
    both = [sink(broker, "?spool_mb=0" if option == "spool_mb=0" else ""), sink(broker, f"?{option}")]
    assert until(lambda: [state(each) for each in both] == ["OK", "OK"], 60)
    for n in range(40):
        for each in both:
            each.write(made(n, digit="a"))
        time.sleep(0.02)
    assert until(lambda: len(subscriber.of("kitchen/cam/result")) == 80, 60)
    assert [each.report()["counters"]["reconnects"] for each in both] == [0, 0]
    for each in both:
        each.close()


def test_the_spool_is_bounded_and_the_newest_stay(broker: Broker, subscriber: Subscriber) -> None:
    broker.kill()
    one = sink(broker, "?spool_mb=0.01")
    for n in range(100):
        one.write(made(n, digit="a"))
    lost = one.report()["counters"]["lost_spool"]
    assert 50 < lost < 100
    broker.start()
    assert subscriber.connected.wait(60)
    assert until(lambda: len(fresh(subscriber.of("kitchen/cam/result"))) == 100 - lost, 60)
    assert numbers(fresh(subscriber.of("kitchen/cam/result"))) == list(range(lost, 100))
    one.close()
    none = sink(broker, "?spool_mb=0")
    assert until(lambda: state(none) == "OK", 60)
    broker.kill()
    assert until(lambda: state(none) == "RECONNECTING", 60)
    with pytest.raises(mmedge.MmedgeError, match="lost"):
        none.write(made(0, digit="a"))
    none.close()


def test_a_full_disk_holds_back_nothing_that_is_on_it(broker: Broker, subscriber: Subscriber) -> None:
    """A limit on the size of files stands for it: what is sent cannot be removed from the spool then."""
    broker.kill()
    one = sink(broker)
    for n in range(60):
        one.write(made(n, digit="a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        broker.start()
        assert subscriber.connected.wait(60)
        assert until(lambda: len(subscriber.of("kitchen/cam/result")) == 60, 60), one.report()
        assert "spool cannot be written" in str(one.report()["reason"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert until(lambda: one.report()["counters"]["spooled"] == 0, 60), one.report()
    assert one.report()["reason"] is None
    assert numbers(subscriber.of("kitchen/cam/result")) == list(range(60))
    one.close()


def test_a_broker_that_refuses_is_told_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    password = shutil.which("mosquitto_passwd")
    if password is None:
        pytest.skip("mosquitto_passwd missing; type: apt-get install mosquitto")
    subprocess.run([password, "-b", "-c", str(tmp_path / "users"), "me", "right-word"], check=True)
    (tmp_path / "users").chmod(0o644)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {tmp_path / 'users'}")
    broker.start()
    try:
        queue = open_sink(f"mqtt://me:wrong-word@127.0.0.1:{broker.port}/a")
        assert until(lambda: "refuses" in str(queue.report()["reason"]), 60)
        queue.write(made(0, x="a"))
        queue.settle()
        assert queue.report()["counters"]["spooled"] == 1  # type: ignore[index]
        assert "wrong-word" not in queue.name + caplog.text + str(queue.report())
        queue.close()
        right = open_sink(f"mqtt://me:right-word@127.0.0.1:{broker.port}/a")
        assert until(lambda: right.report()["state"] == "OK", 60)
        right.close()
    finally:
        broker.kill()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_encrypted_connection(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl missing; type: apt-get install openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    line = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost"
    subprocess.run([*line.split(), "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    key.chmod(0o644)
    broker = Broker(tmp_path, "allow_anonymous true", f"certfile {cert}", f"keyfile {key}")
    broker.start()
    try:
        trusted = make_sink(f"mqtts://localhost:{broker.port}/a?ca={cert}&spool={tmp_path}/a.db")
        doubted = make_sink(f"mqtts://localhost:{broker.port}/a?spool={tmp_path}/b.db")
        assert until(lambda: state(trusted) == "OK", 60), trusted.report()  # type: ignore[attr-defined]
        assert until(lambda: state(doubted) == "RECONNECTING", 60)
        trusted.close()
        doubted.close()
        doubted = None
        time.sleep(1)  # paho leaves the socket of a handshake that failed to the collector
        gc.collect()
    finally:
        broker.kill()


def test_events_of_a_run_on_the_command_line(
    broker: Broker, subscriber: Subscriber, tmp_path: Path, write_clip: WriteClip
) -> None:
    clip = write_clip(picture=lambda t: 235 if t >= 0.5 else 16)
    line = [sys.executable, "-m", "mmedge", "run", str(tiny_bundle(tmp_path / "t.mmedge")), "--image", str(clip)]
    (tmp_path / "address").write_text(f"mqtt://127.0.0.1:{broker.port}/k?events=event&tasks=scene\n")
    (tmp_path / "address").chmod(0o600)
    line += ["--latency", "offline"]  # which no machine is too slow for
    done = subprocess.run([*line, "--sink", f"@{tmp_path}/address"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert until(lambda: len(subscriber.of("k/event")) == 2, 60), subscriber.messages
    first, second = subscriber.of("k/event")
    assert (first["before"], first["before_ms"], first["label"]) == (None, None, "dark")
    assert (second["before"], second["label"]) == ("dark", "bright")
    assert second["before_ms"] == pytest.approx(520, abs=45)
    assert abs(second["unix_ns"] - time.time_ns()) < 60e9
    assert second["unix_ns"] - first["unix_ns"] == second["t_ns"] - first["t_ns"]


def test_a_number_is_a_measurement(broker: Broker, subscriber: Subscriber) -> None:
    one = sink(broker, "?discovery=homeassistant")
    one.write(made(0, far=TaskResult(label=None, score=None, value=2.5, unit="m")))
    found: list[Any] = []

    def told() -> bool:
        found[:] = [json.loads(p) for topic, p, _ in subscriber.messages if topic.endswith("/far/config")]
        return bool(found)

    assert until(told, 60)
    assert (found[0]["unit_of_measurement"], found[0]["state_class"]) == ("m", "measurement")
    assert "].value }}" in found[0]["value_template"]
    one.close()
