"""The conditions of a measurement: what slows a machine down from outside, and whether it did so."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mmedge.bench.power import PowerMeter
from mmedge.bench.processes import Usage, look, took
from mmedge.bench.sysfs import ROOT, each, number, text

OTHERS = 0.1  # share of all cores that other programs may take
WAITED = 0.05  # share of its time that this run may wait for a core while they do
# Types of the kernel's cooling devices that slow something down, as Jetson Linux names them.
_SLOWING = ("cpufreq", "devfreq", ".gpu", "throttle-alert")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Conditions:
    """Watches a machine from ``begin`` to ``end``.

    Args:
        root: Where ``sys`` and ``proc`` lie: another folder for a recorded tree.

    Attributes:
        usage: What each process of this run has taken in between, by its id.
        power: What the rails give.
        problems: Why what was measured in this time is not valid; from ``end`` on.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self.usage: dict[int, Usage] = {}
        self.power: PowerMeter
        self.problems: list[str] = []
        self._heat: dict[str, float] = {}
        self._clocks: dict[str, list[int]] = {}
        self._loads: dict[str, list[int]] = {}  # of a Jetson's GPU, in thousandths
        self._slowed: dict[str, int] = {}  # what cooled by slowing down -> in how many looks

    def begin(self) -> None:
        """Note where all counters stand."""
        self._began_s = time.monotonic()
        self._busy_s, self._stolen_s = self._cores_s()
        self._before = look()
        self._throttles = self._throttled()
        self._pressure = self._waiting_us()
        self.power = PowerMeter(self._root)
        self.sample()

    @property
    def seconds(self) -> float:
        """How long it has been since ``begin``."""
        return max(time.monotonic() - self._began_s, 1e-9)

    def sample(self) -> None:
        """Read what has a value and no counter: power, temperatures, clocks. Some times a second."""
        self.power.sample()
        for zone in each(self._root, "sys/class/thermal/thermal_zone*"):
            degrees, name = number(zone / "temp"), text(zone / "type") or zone.name
            if degrees is not None:
                self._heat[name] = max(self._heat.get(name, -273.0), degrees / 1000)
        for cooler in each(self._root, "sys/class/thermal/cooling_device*"):
            name = text(cooler / "type") or ""
            # Not a fan; and not Intel's, whose counters tell more.
            if any(kind in name for kind in _SLOWING) and (number(cooler / "cur_state") or 0) > 0:
                self._slowed[f"cooling by {name}"] = self._slowed.get(f"cooling by {name}", 0) + 1
        for name, path, per_khz in self._clock_files():
            clock = number(path)
            if clock is not None:
                self._clocks.setdefault(name, []).append(clock // per_khz)
        for device in self._gpus():
            load = number(device / "device/load")
            if load is not None:
                self._loads.setdefault(device.name, []).append(load)

    def end(self, results: int) -> dict[str, object]:
        """Return what was seen; ``results`` came in this time."""
        seconds = self.seconds
        self.usage = took(self._before, look())
        busy_s, stolen_s = self._cores_s()
        cores = len(os.sched_getaffinity(0))
        own_s = sum(used.cpu_s for used in self.usage.values())
        waited_s = sum(used.waited_s for used in self.usage.values())
        others = max(0.0, busy_s - self._busy_s - own_s) / seconds / cores
        stolen = max(0.0, stolen_s - self._stolen_s) / seconds / cores
        waited = waited_s / (waited_s + own_s) if own_s > 0 else 0.0
        throttles = {
            name: count - self._throttles.get(name, 0)
            for name, count in self._throttled().items()
            if count > self._throttles.get(name, 0)
        } | self._slowed
        battery = self._on_battery()
        self.problems = judge(others, waited, stolen, throttles, battery=battery)
        pressure = self._waiting_us()
        found: dict[str, object] = {
            "governor": self._governors(),
            "throttled": throttles,
            "others_cpu_share": round(others, 3),
            "waited_for_core_share": round(waited, 3),
            "stolen_cpu_share": round(stolen, 3),
            "cpu_pressure_share": None
            if pressure is None or self._pressure is None
            else round((pressure - self._pressure) / 1e6 / seconds, 3),
            "on_battery": battery,
            "temperature_c": {name: round(degrees, 1) for name, degrees in sorted(self._heat.items())},
            "clock_mhz": {name: [min(seen) // 1000, max(seen) // 1000] for name, seen in sorted(self._clocks.items())},
            "gpu_load_share": {
                name: round(sum(seen) / len(seen) / 1000, 3) for name, seen in sorted(self._loads.items())
            },
            "power": self.power.report(seconds, results),
        }
        return {name: value for name, value in found.items() if value not in (None, {}, [])}

    def _cores_s(self) -> tuple[float, float]:
        """Return for how long cores were busy, and for how long the host took them away."""
        for line in (text(self._root / "proc/stat") or "").splitlines():
            kind, *fields = line.split()
            if kind == "cpu":
                ticks = [int(field) for field in fields]
                user, nice, system, _, _, irq, soft, steal = (*ticks, *[0] * 8)[:8]
                return (user + nice + system + irq + soft) * _TICK_S, steal * _TICK_S
        return 0.0, 0.0

    def _throttled(self) -> dict[str, int]:
        """Return how often, by what, the machine has slowed itself down since it was started."""
        files = {
            f"{cpu.name} {what}": cpu / f"thermal_throttle/{what}_throttle_count"
            for cpu in each(self._root, "sys/devices/system/cpu/cpu[0-9]*")
            for what in ("core", "package")
        }
        for folder in each(self._root, "sys/class/hwmon/hwmon*"):
            if text(folder / "name") == "soctherm_oc":  # under-voltage, average and instantaneous over-current
                files |= {path.name.removesuffix("_event_cnt"): path for path in each(folder, "oc*_event_cnt")}
        found = {name: count for name, path in files.items() if (count := number(path)) is not None}
        for line in (text(self._root / "sys/fs/cgroup/cpu.stat") or "").splitlines():
            if line.startswith("nr_throttled "):
                found["cgroup quota"] = int(line.split()[1])
        return found

    def _waiting_us(self) -> int | None:
        line = (text(self._root / "proc/pressure/cpu") or "").partition("\n")[0]
        return int(line.rpartition("total=")[2]) if line.startswith("some") else None

    def _governors(self) -> list[str]:
        files = each(self._root, "sys/devices/system/cpu/cpufreq/policy*/scaling_governor")
        return sorted({governor for path in files if (governor := text(path))})

    def _clock_files(self) -> list[tuple[str, Path, int]]:
        """Return the files of clocks and what makes them kHz: of the cores, and of a Jetson's GPU and memory."""
        cores = [
            (policy.name, policy / "scaling_cur_freq", 1)
            for policy in each(self._root, "sys/devices/system/cpu/cpufreq/policy*")
        ]
        gpus = [(device.name, device / "cur_freq", 1000) for device in self._gpus()]
        memory = ("emc", self._root / "sys/kernel/debug/bpmp/debug/clk/emc/rate", 1000)  # for root alone
        return [found for found in (*cores, *gpus, memory) if _is_there(found[1])]

    def _gpus(self) -> list[Path]:
        """Return the folders of a Jetson's GPUs: those that jetson-stats reads."""
        found = each(self._root, "sys/class/devfreq/*")
        return [device for device in found if any(name in device.name for name in ("gpu", "ga10b", "gv11b"))]

    def _on_battery(self) -> bool | None:
        supplies = list(each(self._root, "sys/class/power_supply/*"))
        kinds = {supply: text(supply / "type") for supply in supplies}
        if not any(kind == "Battery" and text(s / "scope") != "Device" for s, kind in kinds.items()):
            return None  # no battery that it could run on
        mains = [number(s / "online") for s, kind in kinds.items() if kind in ("Mains", "USB")]
        return bool(mains) and not any(mains)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # below a folder of somebody else
        return False


def judge(
    others: float, waited: float, stolen: float, throttles: Mapping[str, int], *, battery: bool | None
) -> list[str]:
    """Return why a run under these conditions is not valid.

    Args:
        others: Share of all cores that other programs took.
        waited: Share of its time that the run's processes were ready and had no core.
        stolen: Share of all cores that the host of a virtual machine took.
        throttles: By what the machine slowed itself down, and how often.
        battery: Whether it ran on battery.

    Example:
        >>> judge(0.4, 0.2, 0.0, {}, battery=False)
        ['contended: other programs took 40 % of the cores, and this run waited for one 20 % of its time']
        >>> judge(0.4, 0.01, 0.0, {}, battery=None)
        []
    """
    found = []
    if others > OTHERS and waited > WAITED:
        found.append(
            f"contended: other programs took {100 * others:.0f} % of the cores, and this run waited for one "
            f"{100 * waited:.0f} % of its time"
        )
    if stolen > WAITED:
        found.append(f"contended: the host took {100 * stolen:.0f} % of the cores away from this virtual machine")
    if throttles:
        found.append(f"throttled: {', '.join(f'{name} {count} times' for name, count in throttles.items())}")
    if battery:
        found.append("on battery, where the machine saves power")
    return found
