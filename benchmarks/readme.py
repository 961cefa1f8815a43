"""The README's table of ratios, made of ``docs/benchmarks.md`` and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- performance: python -m benchmarks -->", "<!-- /performance -->"
# Figure -> what it is a ratio of. Shares are ours of the other's time; multiples the other's time over ours.
RATIOS = {
    "runtime_share_vga": "end to end without waiting for data, of the engine's time: ResNet-18 at 640x480",
    "runtime_share_1080p": "end to end without waiting for data, of the engine's time: ResNet-18 at 1920x1080",
    "image_480_vs_best_opencv": "picture of 640x480 to a tensor: time of the best OpenCV lines, of ours",
    "image_480_vs_kornia": "picture of 640x480 to a tensor: time of kornia-rs, of ours",
    "image_1080_vs_best_opencv": "picture of 1920x1080: time of the best OpenCV lines, of ours",
    "image_nv12_vs_opencv": "NV12 of 640x480: time of OpenCV, of ours",
    "logmel_20ms_vs_knf": "log-mel of 20 ms more of sound: time of kaldi-native-fbank, of ours",
    "auto_resnet18_vs_ort_fp32": "ResNet-18 on this CPU: time of ONNX Runtime in fp32, of what `auto` serves",
    "live_p50_vs_threads": "live camera and microphone, end to end p50, of that of threads by hand",
    "live_cpu_vs_threads": "live camera and microphone, processor time, of that of threads by hand",
    "live_pss_vs_threads": "live camera and microphone, memory, of that of threads by hand",
    "busy_p50_vs_threads": "live beside a busy Python thread, end to end p50, of that of threads by hand",
    "audio_gil_p99_vs_callback": "sound to features while the interpreter is held: p99, of that of a Python callback",
    "cold_first_result_vs_bare": "first fused result of a cold process: time of ours, of a bare script's",
    "replay_x": "replay, times real time",
}
_FIGURE = re.compile(r"^`(\w+)` = (-?[\d.]+|nan)(?: \(target ([<>]=) ([\d.]+)\))?", re.M)


def performance(page: str) -> str:
    """Return the table: each known ratio that stands on the page, its goal, and on what it rests."""
    rows = ["| ratio | measured | goal | evidence |", "|---|---|---|---|"]
    found: dict[str, str] = {}
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        evidence = re.search(r"evidence:\s+(\S+)", section)
        for name, value, side, limit in _FIGURE.findall(section):
            if name in RATIOS:
                goal = f"{side} {limit}" if limit else "-"
                found[name] = f"| {RATIOS[name]} | {value} | {goal} | `{evidence[1] if evidence else '?'}` |"
    return "\n".join([*rows, *(found[name] for name in RATIOS if name in found)])


def written(readme: str, page: str) -> str:
    """Return the README with the table of the page."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{performance(page)}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(), PAGE.read_text()))
