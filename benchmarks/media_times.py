"""Pictures against their own sound: how far a flash is from its click, in each container and codec."""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

from benchmarks import media_clips as clips

# Codecs of pictures with and without pictures that are sent out of order.
VIDEOS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"bf": "0"}),
    "h264 with B": ("libx264", {}),
    "mpeg4": ("mpeg4", {}),
    "mpeg4 with B": ("mpeg4", {"bf": "2"}),
    "mpeg2 with B": ("mpeg2video", {"bf": "2"}),
    "mjpeg": ("mjpeg", {}),
    "hevc": ("libx265", {"x265-params": "log-level=none"}),
}
# Where both tracks' times are stated. AVI states none of MP3's delay, FLV has whole ms and no delay of AAC.
CONTAINERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mp4": (("h264", "h264 with B", "mpeg4", "hevc"), ("aac", "libmp3lame", "libopus", "flac")),
    "mov": (("h264", "h264 with B", "mpeg4 with B", "mjpeg"), ("pcm_s16le", "aac")),
    "mkv": (tuple(VIDEOS), ("pcm_s16le", "aac", "libopus", "flac")),
    "nut": (("h264 with B", "mpeg2 with B", "mjpeg"), ("pcm_s16le",)),
    "avi": (("h264", "h264 with B", "mpeg4", "mpeg4 with B", "mjpeg"), ("pcm_s16le",)),
    "ts": (("h264", "h264 with B", "hevc", "mpeg2 with B"), ("aac", "libmp3lame", "libopus")),
}


def rows(quick: bool) -> list[tuple[str, float, float, str]]:
    """Return (name, value, limit, detail): the largest distance in each container, and of all."""
    found: list[tuple[str, float, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for container, (videos, audios) in CONTAINERS.items():
            pairs = list(product(videos, audios))
            worst, where = 0.0, ""
            for video, audio in pairs[:: 3 if quick else 1]:
                codec, options = VIDEOS[video]
                path = Path(folder) / f"clip.{container}"
                apart = abs(clips.apart_samples(clips.flash_and_click(path, codec, audio, options=options)))
                if apart >= worst:
                    worst, where = apart, f"{video} and {audio}"
            found.append((f"av_offset_samples {container}", worst, 1.0, f"at 48 kHz, the worst is {where}"))
    found.append(("av_offset_samples", max(row[1] for row in found), 1.0, "of all containers and codecs"))
    return found


if __name__ == "__main__":
    for row in rows(quick=False):
        print(*row, sep="\t")
