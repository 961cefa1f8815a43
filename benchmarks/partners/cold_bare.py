"""The least that gives a first fused answer from a clip: PyAV, numpy, ONNX Runtime, and nothing that is kept.

Usage: ``python benchmarks/partners/cold_bare.py FOLDER CLIP``, by its path: nothing else is imported. FOLDER was made
by ``by_hand.unpack``. PyAV scales the picture and resamples the sound, so that OpenCV need not be loaded. It prints a
line of JSON: the label, its score.
"""

import json
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime


def main(folder: Path, clip: str) -> None:
    seats = json.loads((folder / "manifest.json").read_text())["inputs"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    eye, ear, fuse = (
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
        for name in ("image_encoder", "audio_encoder", "fusion")
    )
    image, audio = seats["image"], seats["audio"]
    rate_hz, features = audio["sample_rate_hz"], audio["features"]
    window = np.zeros(round(audio["window_ms"] * rate_hz / 1000), np.float32)

    with av.open(clip) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        resampler, frame, heard = av.AudioResampler("flt", "mono", rate_hz), None, []
        for packet in container.demux(video, sound):  # the first picture, and the sound up to it
            for decoded in packet.decode():
                if packet.stream is video:
                    frame = frame or decoded
                elif frame is None or decoded.time <= frame.time:
                    heard += [piece.to_ndarray()[0] for piece in resampler.resample(decoded)]
            if frame is not None and heard:
                break
    pcm = np.concatenate(heard)[: max(1, round(float(frame.time) * rate_hz))]
    window[-len(pcm) :] = pcm[-len(window) :]

    height, width = image["size"]
    small = frame.reformat(width, height, "gray", interpolation="AREA", dst_color_range="JPEG").to_ndarray()
    picture = ((small / np.float32(255) - image["mean"][0]) / image["std"][0]).astype(np.float32)[None, None]

    size, hop = features["window_samples"], features["hop_samples"]
    pieces = np.lib.stride_tricks.sliding_window_view(window, size)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    low, high = (2595 * np.log10(1 + features[key] / 700) for key in ("f_min_hz", "f_max_hz"))
    corners = 700 * (10 ** (np.linspace(low, high, features["n_mels"] + 2) / 2595) - 1)
    bins = np.arange(features["n_fft"] // 2 + 1)[:, None] * (rate_hz / features["n_fft"])
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    filters = np.maximum(0, np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)))
    power = np.abs(np.fft.rfft(pieces * hann, features["n_fft"])) ** 2 @ filters
    mel = (np.log(np.maximum(power, features["floor"])) - features["mean"]) / features["std"]

    seen = eye.run(["embedding"], {"x": picture})[0]
    heard_as = ear.run(["embedding"], {"x": mel[None].astype(np.float32)})[0]
    nobody_types, present = np.zeros((1, 64), np.float32), np.array([[1, 1, 0]], np.float32)
    given = {"image": seen, "audio": heard_as, "text": nobody_types, "present": present}
    logits = fuse.run(["digit"], given)[0].reshape(-1)
    scores = np.exp(logits - logits.max())
    labels = (folder / "labels.txt").read_text().split()
    print(json.dumps([labels[int(scores.argmax())], float(scores.max() / scores.sum())]), flush=True)


main(Path(sys.argv[1]), sys.argv[2])
