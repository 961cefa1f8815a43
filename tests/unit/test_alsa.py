"""What of ALSA's configuration a process that listens leaves out."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import ctypes
from mmedge.capture.alsa import forget_encoder

forget_encoder()
forget_encoder()
alsa, found = ctypes.CDLL("libasound.so.2"), ctypes.c_void_p()
alsa.snd_config_update()  # as PortAudio does
top = ctypes.c_void_p.in_dll(alsa, "snd_config")
for name in (b"pcm.a52", b"pcm.mine"):
    print(alsa.snd_config_search(top, name, ctypes.byref(found)) == 0)
"""


@pytest.mark.parametrize("encoder", ["pcm.a52 { type null }", ""])
def test_the_encoder_is_left_out_and_nothing_else(encoder: str, tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libasound.so.2")
    except OSError:
        pytest.skip("ALSA is not installed")
    (tmp_path / "alsa.conf").write_text(f"{encoder}\npcm.mine {{ type null }}\n")
    environment = {**os.environ, "ALSA_CONFIG_PATH": str(tmp_path / "alsa.conf")}
    said = subprocess.check_output([sys.executable, "-c", CODE], text=True, env=environment)
    assert said.split() == ["False", "True"]
