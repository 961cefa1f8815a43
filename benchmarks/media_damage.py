"""Damaged pictures that are answered as if they were good, and senders that come back as another one."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import media_clips as clips
from mmedge.bundle.manifest import ImageInput
from mmedge.capture import open_sources
from mmedge.types import Frame, Packet

# Arithmetic codes have no redundancy: damage inside a packet of HEVC, VP8 or VP9 cannot be seen by anyone.
IN_PACKETS = ("mjpeg", "h264", "mpeg2", "mpeg4")
LOST = ("h264", "h264 intra refresh", "hevc", "mpeg2", "mpeg4")
SENDERS = {
    "mpeg2video": ("-c:v", "mpeg2video"),
    "mpeg4": ("-c:v", "mpeg4"),
    "hevc": ("-c:v", "libx265", "-preset", "ultrafast", "-tune", "zerolatency", "-x265-params", "log-level=none"),
    "other size": ("-s", "640x480", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"),
    "other tracks": ("-c:v", "mpeg2video", "-mpegts_start_pid", "0x300", "-mpegts_pmt_start_pid", "0x1010"),
}
FIRST = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency")
PAUSE_S, WAIT_S = 0.8, 10.0


def damaged(quick: bool) -> list[tuple[str, float, float, str]]:
    """Return the share of damaged pictures that came as good ones, by codec, and how many good ones were refused."""
    rows, refused, all_damaged, all_unnoticed = [], 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way, codecs in (("lost", LOST), ("hurt", IN_PACKETS)):
            for codec in codecs:
                whole_clip = clips.moving(folder / f"{way}.{'ts' if way == 'lost' else 'mkv'}", codec)
                whole = clips.play(whole_clip)
                refused += sum(said for _, _, said in whole.pictures)
                wrong = unnoticed = 0
                for seed in range(1 if quick else 3):
                    kinds = (*clips.KINDS, "lost") if codec == "h264" else clips.KINDS
                    for kind in ("",) if way == "lost" else kinds:
                        out = folder / f"out{whole_clip.suffix}"
                        if way == "lost":
                            clips.without_packets(whole_clip, out, 0.004 if seed else 0.02, seed)
                        else:
                            clips.with_hurt_packets(whole_clip, out, kind, 0.1 if codec == "mjpeg" else 0.02, seed)
                        score = clips.score(whole, clips.play(out))
                        wrong, unnoticed = wrong + score.damaged, unnoticed + score.unnoticed
                all_damaged, all_unnoticed = all_damaged + wrong, all_unnoticed + unnoticed
                detail = f"{unnoticed} of {wrong} damaged pictures, {way} {codec}"
                rows.append((f"damaged_answered_ok_ratio {way} {codec}", unnoticed / max(wrong, 1), 0.1, detail))
    total = f"{all_unnoticed} of {all_damaged} damaged pictures of all clips"
    rows.append(("damaged_answered_ok_ratio", all_unnoticed / max(all_damaged, 1), 0.1, total))
    rows.append(("undamaged_refused", float(refused), 0.0, "pictures of undamaged clips"))
    return rows


def recovery_s(second: tuple[str, ...], *, port: int) -> float:
    """Return how long after the start of a second sender its fifth picture came."""
    uri = f"udp://127.0.0.1:{port}"
    seat = ImageInput(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    (source,) = open_sources({"image": seat}, {"image": uri}, workers=True)
    frames: list[int] = []

    def emit(packet: Packet) -> None:
        if isinstance(packet, Frame):
            if not packet.damaged:
                frames.append(packet.epoch)
            if packet.release is not None:
                packet.release()

    source.start(emit)
    try:
        time.sleep(0.5)
        _send(uri, FIRST, 2).wait()
        time.sleep(PAUSE_S)
        before = frames[-1] if frames else -1
        began = time.monotonic()
        sender = _send(uri, second, 2 * WAIT_S)
        try:
            while time.monotonic() - began < WAIT_S and sum(epoch > before for epoch in frames) < 5:
                time.sleep(0.01)
        finally:
            sender.kill()
            sender.wait()
        return time.monotonic() - began
    finally:
        source.stop()


def _send(uri: str, codec: tuple[str, ...], seconds: float) -> subprocess.Popen[bytes]:
    pictures = ("-re", "-f", "lavfi", "-i", "testsrc2=s=320x240:r=25", "-t", str(seconds))
    stream = ("-g", "25", "-f", "mpegts", f"{uri}?pkt_size=1316")
    return subprocess.Popen(["ffmpeg", "-nostdin", "-loglevel", "quiet", *pictures, *codec, *stream])


def rows(quick: bool) -> list[tuple[str, float, float, str]]:
    """Return (name, value, limit, detail) of each figure."""
    found = damaged(quick)
    times = {name: recovery_s(codec, port=47_610 + index) for index, (name, codec) in enumerate(SENDERS.items())}
    for name, seconds in times.items():
        found.append((f"codec_change_recovery_s {name}", seconds, 3.0, f"h264, {PAUSE_S} s of silence, then {name}"))
    found.append(("codec_change_recovery_s", max(times.values()), 3.0, "the longest of these"))
    return found


if __name__ == "__main__":
    for row in rows(quick=False):
        print(*row, sep="\t")
