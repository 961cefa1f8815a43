"""Results, events and the newest state to an MQTT broker, which may be away: nothing is lost within a bound."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import socket
import sqlite3
import threading
import time
import zlib
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from mmedge.errors import ConfigError, MmedgeError
from mmedge.extras import require
from mmedge.files import user_state
from mmedge.sinks.base import Event, Run
from mmedge.sinks.spool import Message, Spool
from mmedge.types import Result, TaskResult
from mmedge.version import __version__

log = logging.getLogger("mmedge.sinks")
_WINDOW = 16  # messages on their way to the broker at once
_FRESH = 64  # messages that wait in memory while the broker is there
_STATE_S = 1.0  # between two states in which only scores differ
_CLOSE_S = 1.5  # for the broker to acknowledge what is on its way at the end
_LEAVE_S = 0.5  # for the connection to end
_FORM = "mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC"


class MqttSink:
    """Publishes with QoS 1 below one topic.

    ``TOPIC/result`` or ``TOPIC/event`` gets each line, with an ``id`` that stays the same if a message has to be sent
    again. ``TOPIC/state`` holds the newest answers and ``TOPIC/availability`` says ``online`` or ``offline``, both
    retained; the latter is the last will, too.

    Args:
        address: Broker and topic.
        tls: Whether the connection is encrypted.
        ca: File of the authority that signed the broker's certificate; the system's by default.
        spool: File for what a broker that is away has not got.
        spool_bytes: How much of it is kept; 0 keeps nothing on the disk.
        discovery: Whether Home Assistant is told of the tasks.
        keepalive_s: After which silence a broker counts as gone.

    Raises:
        ConfigError: If address, certificate or spool cannot be used.
        MissingDependencyError: If paho-mqtt is not installed.
    """

    def __init__(
        self,
        address: SplitResult,
        *,
        tls: bool = False,
        ca: str = "",
        spool: str = "",
        spool_bytes: int = 16_000_000,
        discovery: bool = False,
        keepalive_s: int = 15,
    ) -> None:
        mqtt = require("paho.mqtt.client", "the sink 'mqtt'")
        self._topic = _topic(address)
        host, port = str(address.hostname), address.port or (8883 if tls else 1883)
        seen = f"{socket.gethostname()}|{host}|{port}|{self._topic}"
        self._id = f"mmedge-{hashlib.sha256(seen.encode()).hexdigest()[:12]}"
        self._spool: Spool | None = None
        if spool_bytes:
            self._spool = Spool(Path(spool) if spool else user_state("mqtt", f"{self._id}.db"), spool_bytes)
        self._first = self._spool.next_key() if self._spool is not None else time.time_ns()
        self._key = self._first
        self._sent = 0  # the last key of the spool that is on its way
        self._fresh: deque[Message] = deque()
        self._flying: dict[int, tuple[Message, bool]] = {}  # number of the packet -> message, whether on the disk
        self._acknowledged: deque[int] = deque()
        self._done: list[int] = []  # keys that the disk could not remove yet
        self._answers: dict[str, dict[str, Any]] = {}
        self._state: dict[str, Any] = {}
        self._state_s, self._state_due, self._gist = 0.0, False, ""
        self._discovery, self._known, self._name = discovery, set[str](), self._topic
        self._online = self._hello = self._closing = False
        self._reason: str | None = "not connected yet"
        self._disk: str | None = None
        self._connects = 0
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=_client_id(self._id, spool, kept=bool(spool_bytes)),
            clean_session=not spool_bytes,
            protocol=mqtt.MQTTv311,
        )
        client.max_inflight_messages_set(_WINDOW)
        client.reconnect_delay_set(1, 30)
        if address.username:
            client.username_pw_set(unquote(address.username), unquote(address.password or "") or None)
        try:
            if tls:
                client.tls_set(ca_certs=ca or None)
            client.will_set(f"{self._topic}/availability", "offline", qos=1, retain=True)
            client.connect_async(host, port, keepalive=keepalive_s)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the connection cannot be set up: {error}", where="sink 'mqtt'", fix=_FORM) from error
        # They only note what has happened: paho holds a lock of its own while it calls.
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_connect_fail = lambda *_: self._gone("the broker cannot be reached")
        client.on_publish = self._published
        client.loop_start()
        self._thread = threading.Thread(target=self._main, name="mmedge-mqtt", daemon=True)
        self._thread.start()

    def _connected(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._gone(f"the broker refuses: {code}")
            return
        if self._closing:  # it was being made when the sink was closed
            client.disconnect()
            return
        self._connects += 1
        self._online, self._hello, self._reason = True, True, None
        self._wake.set()

    def _disconnected(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        if self._online or self._reason is None:
            self._gone(f"the connection is lost: {code}")

    def _gone(self, reason: str) -> None:
        if self._online or self._reason is None:
            log.warning("sink 'mqtt': %s; results go to the spool", reason)
        self._online, self._reason = False, reason
        self._wake.set()

    def _published(self, client: Any, data: Any, number: int, code: Any, properties: Any) -> None:
        self._acknowledged.append(number)
        self._wake.set()

    def begin(self, run: Run) -> None:
        """Take the name of the bundle."""
        self._name = run.bundle.name

    def write(self, result: Result | Event) -> None:
        """Take a message for the broker, or for the disk while it is away.

        Raises:
            MmedgeError: If there is room neither here nor there.
        """
        line = result.to_json()
        with self._lock:
            self._key += 1
            told = f',"id":"{self._first:x}-{self._key - self._first}"}}'.encode()
            kind = "event" if isinstance(result, Event) else "result"
            message = Message(self._key, f"{self._topic}/{kind}", line[:-1] + told)
            self._note(result)
            waiting = self._spool is not None and self._waiting > 0
            if self._online and not waiting and len(self._fresh) < _FRESH:
                self._fresh.append(message)
            else:
                self._keep(message)
        self._wake.set()

    @property
    def _waiting(self) -> int:
        """Messages on the disk that are not on their way."""
        on_disk = sum(stored for _, stored in self._flying.values()) + len(self._done)
        return 0 if self._spool is None else self._spool.count - on_disk

    def _keep(self, message: Message) -> None:
        if self._spool is None:
            raise MmedgeError(
                self._reason or "the broker is too slow", where="sink 'mqtt'", fix="?spool_mb=16 keeps it"
            )
        try:
            self._spool.add(message, after=self._sent)
        except sqlite3.Error as error:
            raise MmedgeError(f"the spool cannot be written: {error}", where="sink 'mqtt'", fix="free space") from error

    def _note(self, result: Result | Event) -> None:
        """Note the newest answers, for the state."""
        for name, task in result.tasks.items():
            self._answers[name] = _told(task)
        gist = json.dumps({name: [told.get("label"), told.get("labels")] for name, told in self._answers.items()})
        self._state = {"t_ns": result.t_ns, "unix_ns": result.unix_ns, "tasks": self._answers}
        self._state_due = True
        if gist != self._gist:
            self._gist, self._state_s = gist, 0.0

    def _main(self) -> None:
        while not self._closing:
            self._wake.wait(0.25)
            self._wake.clear()
            try:
                self._turn()
            except sqlite3.Error as error:
                self._disk = f"the spool cannot be read: {error}"

    def _turn(self) -> None:
        disk: str | None = None
        with self._lock:
            while self._acknowledged:
                message, stored = self._flying.pop(self._acknowledged.popleft(), (None, False))
                if message is not None and stored:
                    self._done.append(message.key)
            while self._done and self._spool is not None:
                try:
                    self._spool.remove(self._done[-1])
                except sqlite3.Error as error:  # a full disk: what is on it is sent all the same, and removed later
                    disk = f"the spool cannot be written: {error}"
                    break
                self._done.pop()
            batch = self._batch() if self._online else []
            greetings = self._greetings() if self._online else []
        for topic, payload in greetings:
            self._client.publish(topic, payload, qos=1, retain=True)
        for message, stored in batch:
            number = self._client.publish(message.topic, message.payload, qos=1).mid
            with self._lock:
                self._flying[number] = message, stored
        self._disk = disk

    def _batch(self) -> list[tuple[Message, bool]]:
        """Take what may be sent now: what was first comes first."""
        room = _WINDOW - len(self._flying)
        batch = [(self._fresh.popleft(), False) for _ in range(min(room, len(self._fresh)))]
        if self._spool is not None and room > len(batch) and not self._fresh and self._waiting:
            found = self._spool.after(self._sent, room - len(batch))
            batch += [(message, True) for message in found]
            self._sent = found[-1].key if found else self._sent
        return batch

    def _greetings(self) -> list[tuple[str, bytes]]:
        """Return what is retained and has changed; all of it after a connection was made."""
        told: list[tuple[str, bytes]] = []
        if self._hello:
            told.append((f"{self._topic}/availability", b"online"))
            self._known.clear()
            self._state_due, self._state_s = bool(self._state), 0.0
        self._hello = False
        for name in self._answers.keys() - self._known if self._discovery else ():
            told.append(self._announce(name, self._answers[name]))
            self._known.add(name)
        if self._state_due and time.monotonic() - self._state_s >= _STATE_S:
            told.append((f"{self._topic}/state", json.dumps(self._state).encode()))
            self._state_due, self._state_s = False, time.monotonic()
        return told

    def _announce(self, task: str, told: dict[str, Any]) -> tuple[str, bytes]:
        """Return the message by which Home Assistant finds a task."""
        name, value = _slug(task), f"value_json.tasks[{json.dumps(task)}]"
        config: dict[str, Any] = {
            "name": task,
            "unique_id": f"{self._id}-{name}",
            "state_topic": f"{self._topic}/state",
            "value_template": f"{{{{ {value}.{'value' if 'value' in told else 'label'} }}}}",
            "json_attributes_topic": f"{self._topic}/state",
            "json_attributes_template": f"{{{{ {value} | tojson }}}}",
            "availability_topic": f"{self._topic}/availability",
            "device": {"identifiers": [self._id], "name": self._name, "manufacturer": "mmedge"},
            "origin": {"name": "mmedge", "sw_version": __version__},
        }
        if "value" in told:
            config |= {"state_class": "measurement", **({"unit_of_measurement": told["unit"]} if told["unit"] else {})}
        return f"homeassistant/sensor/{self._id}/{name}/config", json.dumps(config).encode()

    def report(self) -> dict[str, object]:
        """Return whether the broker is there, what waits for it, and what has been lost."""
        spooled, lost = (0, 0) if self._spool is None else (self._spool.count, self._spool.lost)
        counters = {"spooled": spooled, "lost_spool": lost, "reconnects": max(self._connects - 1, 0)}
        counters["unacknowledged"] = len(self._flying) + len(self._fresh)
        return {
            "state": "OK" if self._online else "RECONNECTING",
            "reason": self._reason or self._disk,
            "counters": counters,
        }

    def close(self) -> None:
        """Say that it goes, and keep on the disk what the broker has not acknowledged; bounded. Idempotent."""
        if self._closing:
            return
        until_s = time.monotonic() + _CLOSE_S
        while self._online and (self._flying or self._fresh or self._waiting) and time.monotonic() < until_s:
            self._wake.set()
            time.sleep(0.01)
        self._closing = True
        self._wake.set()
        self._thread.join(_CLOSE_S)
        if self._online:
            with suppress(RuntimeError, ValueError):  # it may be gone by now
                farewell = self._client.publish(f"{self._topic}/availability", b"offline", qos=1, retain=True)
                farewell.wait_for_publish(0.5)
        self._client.disconnect()
        until_s = time.monotonic() + _LEAVE_S
        while self._client.socket() is not None and time.monotonic() < until_s:
            time.sleep(0.01)
        connection = self._client.socket()
        if connection is not None:  # a broker that hangs
            with suppress(OSError):
                connection.close()
        with self._lock:
            if self._spool is not None:
                for message in [m for m, stored in self._flying.values() if not stored] + list(self._fresh):
                    with suppress(sqlite3.Error):
                        self._spool.add(message, after=self._sent)
                self._spool.close()


def _client_id(name: str, spool: str, *, kept: bool) -> str:
    """Return a name for the connection: a broker ends one when another comes that has the same name.

    Two sinks may have one topic, such as results and events of a run, if each has a spool of its own, or none.
    """
    if not kept:
        return f"{name}-{secrets.token_hex(4)}"
    return f"{name}-{zlib.crc32(str(Path(spool).absolute()).encode()):08x}" if spool else name


def _told(task: TaskResult) -> dict[str, Any]:
    told: dict[str, Any] = {"label": task.label, "score": task.score}
    if task.value is not None:
        return told | {"value": task.value, "unit": task.unit}
    return told | ({"labels": list(task.gist)} if task.boxes else {})


def _slug(text: str) -> str:
    """Return a name that a topic may hold, another one for another text."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    return plain if plain == text else f"{plain}_{zlib.crc32(text.encode()):08x}"


def _topic(address: SplitResult) -> str:
    topic = unquote(address.path).strip("/")
    odd = address.fragment or address.query or re.search(r"[+#]", topic) or topic.startswith("$")
    odd = odd or not topic.isprintable()  # brokers end the connection over a control character
    if not address.hostname or not topic or odd or len(topic.encode()) > 1024:
        told = "the topic is missing, or has one of '+#$?' or a character that cannot be seen"
        what = "there is no host" if not address.hostname else told
        raise ConfigError(what, where="sink 'mqtt'", fix=_FORM)
    return topic


def make(
    target: str,
    *,
    discovery: Literal["none", "homeassistant"] = "none",
    spool: str = "",
    spool_mb: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 16.0,
    keepalive_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 15,
    ca: str = "",
    tls: bool = False,
) -> MqttSink:
    """Return the sink of ``mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC``.

    Args:
        target: What follows ``mqtt:``.
        discovery: Who is told of the tasks.
        spool: File for what the broker has not got; by default one below ``~/.local/state/mmedge``.
        spool_mb: How much of it is kept, in 10^6 bytes; 0 keeps nothing.
        keepalive_s: After which silence a broker counts as gone.
        ca: File of the authority that signed the broker's certificate.
        tls: Whether the connection is encrypted, as it is with ``mqtts://``.

    Raises:
        ConfigError: If address, certificate or spool cannot be used.
        MissingDependencyError: If paho-mqtt is not installed.
    """
    try:
        address = urlsplit(f"mqtt:{target}")
        _ = address.port
    except ValueError:
        address = SplitResult("mqtt", "", "", "", "")
    return MqttSink(
        address,
        tls=tls,
        ca=ca,
        spool=spool,
        spool_bytes=round(spool_mb * 1e6),
        discovery=discovery == "homeassistant",
        keepalive_s=keepalive_s,
    )


make_tls = partial(make, tls=True)  # of mqtts://
