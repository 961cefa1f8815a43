"""Mosquitto as broker, which can be refused, killed, stopped and started again, and a subscriber that keeps all."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.processes import until

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")


class Broker:
    """A mosquitto of its own on a port of loopback, a free one unless it is named."""

    def __init__(self, folder: Path, *settings: str, port: int = 0) -> None:
        if MOSQUITTO is None:
            pytest.skip("mosquitto missing; type: apt-get install mosquitto")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        # Started by root it would give up rights, and with them the files of a test.
        lines = [f"user {getpass.getuser()}", f"listener {self.port} 127.0.0.1"]
        lines += settings or ("allow_anonymous true",)
        self._config.write_text("\n".join([*lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        if not until(self._listens, 60):
            self.kill()
            raise AssertionError("mosquitto does not start")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Subscriber:
    """Keeps what comes, by topic; it connects again when the broker is back."""

    def __init__(self, port: int, topic: str = "#") -> None:
        mqtt = pytest.importorskip("paho.mqtt.client")
        self.messages: list[tuple[str, bytes, bool]] = []
        self.connected = threading.Event()
        name = f"subscriber of {topic}"  # a second one of a name would end the first, and get what it had left
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        self._client.reconnect_delay_set(1, 1)

        def subscribe(client: Any, *_: Any) -> None:
            client.subscribe(topic, qos=1)

        self._client.on_connect = subscribe
        self._client.on_subscribe = lambda *_: self.connected.set()
        self._client.on_disconnect = lambda *_: self.connected.clear()
        self._client.on_message = lambda _, __, m: self.messages.append((m.topic, m.payload, bool(m.retain)))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.connected.wait(60)

    def of(self, topic: str) -> list[Any]:
        return [json.loads(payload) for name, payload, _ in list(self.messages) if name == topic]

    def last(self, topic: str) -> bytes | None:
        return next((payload for name, payload, _ in reversed(list(self.messages)) if name == topic), None)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def fresh(lines: list[Any]) -> list[Any]:
    """Return messages without those that came again: QoS 1 may deliver twice, and the ``id`` tells."""
    seen: dict[str, Any] = {}
    for line in lines:
        seen.setdefault(line["id"], line)
    return list(seen.values())
