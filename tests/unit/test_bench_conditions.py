"""What slows a machine down is seen in its files: trees of an Orin, a Thor, a laptop; missing files are no news."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmedge.bench.conditions import Conditions, judge
from mmedge.bench.power import PowerMeter, rails

# As `find -type f` and `cat` show them: the INA3221 of a module and the INA238 of a carrier board, soctherm's counters.
ORIN_NANO = {
    "class/hwmon/hwmon1/name": "ina3221",
    **{f"class/hwmon/hwmon1/in{k}_label": label for k, label in enumerate(("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), 1)},
    "class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    **{f"class/hwmon/hwmon1/in{k}_input": "5024" for k in (1, 2, 3)},
    "class/hwmon/hwmon1/curr1_input": "1200",
    "class/hwmon/hwmon1/curr2_input": "400",
    "class/hwmon/hwmon1/curr3_input": "280",
    "class/hwmon/hwmon1/in7_input": "1",
    "class/hwmon/hwmon2/name": "soctherm_oc",
    **{f"class/hwmon/hwmon2/oc{k}_event_cnt": count for k, count in ((1, "0"), (2, "15"), (3, "37"))},
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    "class/thermal/thermal_zone0/temp": "51250",
    "devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
    "devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400",
    "class/devfreq/17000000.gpu/cur_freq": "624750000",
    "class/devfreq/17000000.gpu/device/load": "360",
    "class/devfreq/nvdla0/cur_freq": "1",
    "kernel/debug/bpmp/debug/clk/emc/rate": "2133000000",
}
AGX_ORIN = {
    **{f"class/hwmon/hwmon{n}/name": "ina3221" for n in (3, 4)},
    "class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC",
    "class/hwmon/hwmon3/in1_input": "19000",
    "class/hwmon/hwmon3/curr1_input": "200",
    "class/hwmon/hwmon4/in1_label": "NC",
    "class/hwmon/hwmon4/in1_input": "0",
    "class/hwmon/hwmon4/curr1_input": "0",
    "class/hwmon/hwmon4/in2_label": "VDDQ_VDD2_1V8AO",
    "class/hwmon/hwmon4/in2_input": "4900",
    "class/hwmon/hwmon4/curr2_input": "500",
}
THOR = {
    "class/hwmon/hwmon0/name": "ina3221",
    "class/hwmon/hwmon0/in1_label": "VDD_GPU",
    "class/hwmon/hwmon0/in1_input": "20000",
    "class/hwmon/hwmon0/curr1_input": "1500",
    "class/hwmon/hwmon1/name": "ina238",
    "class/hwmon/hwmon1/in1_input": "20000",
    "class/hwmon/hwmon1/curr1_input": "3000",
    "class/hwmon/hwmon1/power1_input": "60500000",
}
LAPTOP = {
    "class/power_supply/AC/type": "Mains",
    "class/power_supply/AC/online": "0",
    "class/power_supply/BAT0/type": "Battery",
    "class/powercap/intel-rapl:0/name": "package-0",
    "class/powercap/intel-rapl:0/energy_uj": "1000000",
    "class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "class/powercap/intel-rapl:0:0/name": "core",
    "class/powercap/intel-rapl:0:0/energy_uj": "400000",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def write(root: Path, tree: dict[str, str]) -> Path:
    for name, content in tree.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


@pytest.mark.parametrize(
    ("tree", "mean_w", "whole", "whole_w"),
    [
        (ORIN_NANO, {"VDD_IN": 6.029, "VDD_CPU_GPU_CV": 2.01, "VDD_SOC": 1.407}, "VDD_IN", 6.029),
        (AGX_ORIN, {"VDD_GPU_SOC": 3.8, "VDDQ_VDD2_1V8AO": 2.45}, "sum of the rails, without the carrier board", 6.25),
        (THOR, {"VDD_GPU": 30.0, "VIN": 60.5}, "VIN", 60.5),
    ],
)
def test_the_rails_of_a_jetson(
    root: Path, tree: dict[str, str], mean_w: dict[str, float], whole: str, whole_w: float
) -> None:
    meter = PowerMeter(write(root, tree))
    for _ in range(3):
        meter.sample()
    found = meter.report(10.0, 300)
    assert found["mean_w"] == pytest.approx(mean_w, abs=0.001)
    assert found["whole"] == whole
    assert found["whole_w"] == pytest.approx(whole_w, abs=0.001)
    assert found["mj_per_result"] == pytest.approx(1e3 * whole_w * 10 / 300, rel=0.01)
    assert meter.report(10.0, 0)["mj_per_result"] is None


@pytest.mark.parametrize("missing", sorted(name for name in ORIN_NANO if "hwmon1" in name))
def test_a_file_that_is_missing_or_damaged_takes_its_rail_away_and_nothing_else(root: Path, missing: str) -> None:
    write(root, ORIN_NANO)
    for content in ("", "n/a", None):
        if content is None:
            (root / "sys" / missing).unlink()
        else:
            (root / "sys" / missing).write_text(content)
        meter = PowerMeter(root)
        meter.sample()
        found = meter.report(1.0, 1)
        assert len(found.get("mean_w", {})) in (0, 2, 3)  # type: ignore[arg-type]
    assert not rails(root / "nowhere")


def test_the_counter_of_x86_wraps(root: Path) -> None:
    meter = PowerMeter(write(root, LAPTOP))
    energy = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    energy.write_text("262143000000\n")
    meter.sample()
    energy.write_text("1671150\n")  # 2 J behind 0
    meter.sample()
    found = meter.report(10.0, 100)
    joules = (262143328850 - 1000000 + 1671150) / 1e6
    assert found["mean_w"] == pytest.approx({"package-0": joules / 10}, rel=1e-6)  # its cores are part of it


def test_a_run_that_the_machine_slowed_down_is_not_valid(root: Path) -> None:
    watch = Conditions(write(root, ORIN_NANO))
    watch.begin()
    (root / "sys/class/hwmon/hwmon2/oc3_event_cnt").write_text("40\n")
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("61000\n")
    (root / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("306000000\n")
    (root / "sys/class/devfreq/17000000.gpu/device/load").write_text("640\n")
    watch.sample()
    seen = watch.end(10)
    assert seen["throttled"] == {"oc3": 3}
    assert watch.problems == ["throttled: oc3 3 times"]
    assert seen["governor"] == ["schedutil"]
    assert seen["temperature_c"] == {"cpu-thermal": 61.0}
    assert seen["clock_mhz"] == {"17000000.gpu": [306, 624], "emc": [2133, 2133], "policy0": [1510, 1510]}
    assert seen["gpu_load_share"] == {"17000000.gpu": 0.5}


def test_a_run_on_battery_is_not_valid(root: Path) -> None:
    write(root, LAPTOP)
    for online, problems in (("0", ["on battery, where the machine saves power"]), ("1", [])):
        (root / "sys/class/power_supply/AC/online").write_text(online)
        watch = Conditions(root)
        watch.begin()
        watch.end(10)
        assert watch.problems == problems


def test_the_counters_of_x86_and_of_a_quota(root: Path) -> None:
    write(
        root,
        {"devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "7", "fs/cgroup/cpu.stat": "nr_throttled 3"},
    )
    watch = Conditions(root)
    watch.begin()
    write(
        root,
        {"devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "9", "fs/cgroup/cpu.stat": "nr_throttled 8"},
    )
    assert watch.end(1)["throttled"] == {"cpu1 core": 2, "cgroup quota": 5}


def test_other_load_counts_where_it_kept_the_run_waiting() -> None:
    quiet = {"others": 0.02, "waited": 0.0, "stolen": 0.0, "throttles": {}, "battery": None}
    assert judge(**quiet) == []  # type: ignore[arg-type]
    assert judge(**{**quiet, "others": 0.5}) == []  # type: ignore[arg-type]
    assert judge(**{**quiet, "waited": 0.5}) == []  # type: ignore[arg-type]  # it kept itself waiting
    assert judge(**{**quiet, "others": 0.5, "waited": 0.1})[0].startswith("contended")  # type: ignore[arg-type]
    assert judge(**{**quiet, "stolen": 0.1})[0].startswith("contended: the host")  # type: ignore[arg-type]


def test_what_cools_by_slowing_down_is_throttling_and_a_fan_is_not(root: Path) -> None:
    coolers = {"cooling_device0": "pwm-fan", "cooling_device1": "cpu-throttle-alert", "cooling_device2": "cpufreq-cpu0"}
    for name, kind in coolers.items():
        write(root, {f"class/thermal/{name}/type": kind, f"class/thermal/{name}/cur_state": "0"})
    watch = Conditions(root)
    watch.begin()
    write(root, {f"class/thermal/cooling_device{k}/cur_state": "1" for k in (0, 1)})
    watch.sample()
    watch.sample()
    assert watch.end(1)["throttled"] == {"cooling by cpu-throttle-alert": 2}
    assert watch.problems == ["throttled: cooling by cpu-throttle-alert 2 times"]
