"""Fused inference on a clip: open a bundle, name a source for each input, iterate.

Run: python examples/01_fused_clip.py [CLIP]     With a camera and a microphone: CLIP = "0" and "mic://default".
"""

import sys
from pathlib import Path

import mmedge

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"


def main() -> None:
    clip = sys.argv[1] if len(sys.argv) > 1 else str(ASSETS / "clips" / "clean.mp4")
    with mmedge.Pipeline(ASSETS / "digits.mmedge", inputs={"image": clip, "audio": clip}, latency="offline") as pipe:
        said = None
        for result in pipe:
            digit = result.tasks["digit"]
            if digit.label != said and digit.label not in (None, "none"):
                said = digit.label
                print(f"{digit}  agreement: {result.tasks['agreement']}  present: {result.present}")
    print(f"{pipe.statistics.results} results, dropped: {pipe.statistics.drops or 'none'}")


if __name__ == "__main__":
    main()
