"""The synchroniser of a replay: it cuts as the recorded run did, or as another bundle does."""

from __future__ import annotations

import logging

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import AudioInput, Input
from mmedge.bundle.masks import validated_masks
from mmedge.errors import ConfigError
from mmedge.plan import plan_sync
from mmedge.recording.event_log import Header, Rules
from mmedge.recording.reader import Turn
from mmedge.recording.writer import bundle_rules, manifest_digest
from mmedge.sync import Synchronizer
from mmedge.types import Snapshot

log = logging.getLogger("mmedge.replay")
_STEP_NS = 1_000_000  # of virtual time by which a replay goes on at least
_CATCH_UP_NS = 60_000_000_000  # of virtual time that a replay catches up at most


class Cutter:
    """Cuts the snapshots of a recording for a bundle.

    Args:
        header: Of the recording.
        bundle: What is replayed, open; None cuts as the recorded run did.

    Attributes:
        attached: Input name -> whether it was live, for the recorded inputs that the bundle has.
        rates_hz: Rate that the bundle takes each sound in.
        spec: Trigger, policy, alignment, deadline.
        sync: The synchroniser, in the state in which the recorded run began; close it.
        obey: Inputs and rules are those of the recorded run, so that its decisions hold.
        same: It is the very bundle of the recorded run, so that answers must be equal too.

    Raises:
        ConfigError: If the recorded inputs do not fit the bundle, or there is none.
    """

    def __init__(self, header: Header, bundle: Bundle | None) -> None:
        if bundle is None:
            self._as_recorded(header)
            return
        manifest, ran = bundle.manifest, header.bundle
        self.seats = manifest.inputs
        self.attached = {name: entry.live for name, entry in header.inputs.items() if name in manifest.inputs}
        self.rates_hz = {n: seat.sample_rate_hz for n, seat in self.seats.items() if isinstance(seat, AudioInput)}
        for name in self.attached:
            self._check_seat(name, header.inputs[name].spec, manifest.inputs[name])
        if frozenset(self.attached) not in validated_masks(manifest):
            raise ConfigError(
                f"the recording has {sorted(header.inputs)}, which is not a validated mask of this bundle",
                where=f"{bundle.path}",
                fix=f"use a bundle of the same inputs; this one has {list(manifest.inputs)}",
            )
        ignored = sorted(set(header.inputs) - set(self.attached))
        if ignored:
            log.warning("the bundle has no input %s: its recorded data is ignored", ignored)
        self.same = ran is not None and ran.manifest_sha256 == manifest_digest(bundle)
        rules = bundle_rules(bundle)
        self.obey = ran is not None and not ignored and (ran.seats, ran.own) == (manifest.inputs, rules)
        if ran is not None and not self.obey:
            log.warning(
                "the bundle's synchronisation differs from '%s', which was recorded: all decisions are made again",
                ran.name,
            )
        self._begin(header, ran.used if ran is not None and self.obey else rules)

    def _as_recorded(self, header: Header) -> None:
        ran = header.bundle
        if ran is None:
            raise ConfigError(
                "the recording holds inputs alone: no bundle ran", where="recording", fix="name a bundle as well"
            )
        self.seats, self.obey, self.same = ran.seats, True, False
        self.attached = {name: entry.live for name, entry in header.inputs.items()}
        self.rates_hz = {n: seat.sample_rate_hz for n, seat in self.seats.items() if isinstance(seat, AudioInput)}
        self._begin(header, ran.used)

    def _begin(self, header: Header, rules: Rules) -> None:
        self.spec = rules.sync
        plan = plan_sync(self.seats, self.attached, rules.missing, self.spec, lossless=header.lossless)
        self.sync = Synchronizer(plan, started_ns=header.started_ns)

    def _check_seat(self, name: str, recorded: Input, seat: Input) -> None:
        if type(recorded) is not type(seat):
            raise ConfigError(
                f"input '{name}' was recorded as {_modality(recorded)}, the bundle's is {_modality(seat)}",
                where=f"input '{name}'",
                fix="use a bundle of the same inputs",
            )

    def run(self, turn: Turn) -> list[Snapshot]:
        """Push a turn's packets, announce its time, return the snapshots; call ``sync.trim`` when done with them."""
        sync = self.sync
        snapshots: list[Snapshot] = []
        if not self.obey:
            # The recorded run did not wake for these triggers' deadlines: it had others, or none.
            snapshots += self._overdue(min((packet.arrive_ns for packet in turn.packets), default=turn.now_ns))
        for packet in turn.packets:
            if packet.stream in self.attached:
                sync.push(packet)
        if not self.obey:
            snapshots += self._overdue(turn.now_ns)
        sync.advance(turn.now_ns)
        return snapshots + sync.poll()

    def _overdue(self, until_ns: int) -> list[Snapshot]:
        snapshots: list[Snapshot] = []
        now_ns = until_ns - _CATCH_UP_NS  # whatever a damaged log says, this ends
        while (due_ns := self.sync.next_deadline_ns()) is not None and max(due_ns, now_ns) < until_ns:
            now_ns = max(due_ns, now_ns + _STEP_NS)
            self.sync.advance(min(now_ns, until_ns))
            snapshots += self.sync.poll()
        return snapshots


def _modality(spec: Input) -> str:
    return type(spec).__name__.removesuffix("Input").lower()
