"""ALSA's configuration, as a process that only listens needs it."""

from __future__ import annotations

import ctypes

_ENCODER = b"pcm.a52"  # of AC-3, for loudspeakers: it brings FFmpeg's libraries, 13 MiB and 0.1 s


def forget_encoder() -> None:
    """Take the encoder out of this process's configuration: PortAudio opens each entry to see what it can do.

    To be called before PortAudio is loaded, by a process in which nobody else uses ALSA: the configuration is one for
    all of it, and has no lock.
    """
    try:
        alsa = ctypes.CDLL("libasound.so.2")
    except OSError:  # PortAudio does without it, too, or says what is missing
        return
    entry = ctypes.c_void_p()
    alsa.snd_config_update()  # reads it, as PortAudio does, which finds it read
    top = ctypes.c_void_p.in_dll(alsa, "snd_config")
    if top and alsa.snd_config_search(top, _ENCODER, ctypes.byref(entry)) == 0:
        alsa.snd_config_delete(entry)
