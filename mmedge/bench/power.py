"""Power, from the kernel's sensors: the INA3221 and INA238 of a Jetson, RAPL of x86. Nothing to install.

The names of a Jetson's rails are those of the board's device tree (Jetson Linux Developer Guide, "Power Monitors").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmedge.bench.sysfs import ROOT, each, number, text

_WHOLE = ("VIN", "VDD_IN", "POM_5V_IN")  # rails that all others hang on, the first that is there
_RAPL = "sys/class/powercap/intel-rapl:*"


@dataclass(frozen=True, slots=True)
class Rail:
    """A rail whose power can be read now.

    Attributes:
        name: As the board names it.
        power: File of its power in uW; None where it follows from the other two.
        voltage: File of its voltage in mV.
        current: File of its current in mA.
    """

    name: str
    power: Path | None
    voltage: Path | None = None
    current: Path | None = None

    def watts(self) -> float | None:
        """Return its power in W; None if it cannot be read."""
        if self.power is not None:
            microwatts = number(self.power)
            return None if microwatts is None else microwatts / 1e6
        assert self.voltage is not None
        assert self.current is not None
        volts, amperes = number(self.voltage), number(self.current)
        return None if volts is None or amperes is None else volts * amperes / 1e6


def rails(root: Path = ROOT) -> list[Rail]:
    """Return the rails whose power this machine tells.

    Args:
        root: Where ``sys`` lies: another folder for a recorded tree.
    """
    found: list[Rail] = []
    for folder in each(root, "sys/class/hwmon/hwmon*"):
        kind = text(folder / "name")
        if kind == "ina3221":
            for label in each(folder, "in*_label"):
                name, place = text(label) or "", label.name.removeprefix("in").removesuffix("_label")
                current = folder / f"curr{place}_input"
                # A channel that is not connected; and the sum of all shunts, which has no current.
                if name and name != "NC" and current.exists():
                    found.append(Rail(name, None, folder / f"in{place}_input", current))
        elif kind in ("ina238", "ina228") and (folder / "power1_input").exists():
            found.append(Rail(text(folder / "in1_label") or "VIN", folder / "power1_input"))
    return found


class PowerMeter:
    """Collects samples of all rails, and the energy that x86 counts.

    Args:
        root: Where ``sys`` lies.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._rails = rails(root)
        self._sums = {rail.name: 0.0 for rail in self._rails}
        self._n = {rail.name: 0 for rail in self._rails}
        # Top-level zones alone: those beneath are parts of them. Readable by root only on most systems.
        zones = [zone for zone in each(root, _RAPL) if zone.name.count(":") == 1]
        self._zones = {zone: start for zone in zones if (start := number(zone / "energy_uj")) is not None}
        self._hidden = bool(zones) and not self._zones
        self._wraps = dict.fromkeys(self._zones, 0)
        self._latest = dict(self._zones)

    def sample(self) -> None:
        """Read everything once; call it more often than a counter of energy wraps (a minute)."""
        for rail in self._rails:
            watts = rail.watts()
            if watts is not None:
                self._sums[rail.name] += watts
                self._n[rail.name] += 1
        for zone, before in self._latest.items():
            now = number(zone / "energy_uj")
            if now is not None:
                if now < before:
                    self._wraps[zone] += number(zone / "max_energy_range_uj") or 0
                self._latest[zone] = now

    def report(self, seconds: float, results: int) -> dict[str, object]:
        """Return mean power by rail, that of the whole, and the energy of a result; empty where nothing tells.

        Args:
            seconds: That were measured.
            results: Answers in that time.
        """
        mean = {name: round(self._sums[name] / n, 3) for name, n in self._n.items() if n}
        for zone, start in self._zones.items():
            joules = (self._latest[zone] + self._wraps[zone] - start) / 1e6
            mean[text(zone / "name") or zone.name] = round(joules / seconds, 3)
        if not mean:
            return {"unknown": "RAPL can be read by root alone"} if self._hidden else {}
        whole = next((name for name in _WHOLE if name in mean), None)
        watts = mean[whole] if whole is not None else sum(mean.values())
        return {
            "mean_w": mean,
            "whole": whole or "sum of the rails, without the carrier board",
            "whole_w": round(watts, 3),
            "mj_per_result": round(1e3 * watts * seconds / results, 2) if results else None,
        }
