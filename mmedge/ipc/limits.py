"""How much may go through the rings between processes."""

MAX_TEXT = 64 * 1024  # bytes of one text
MAX_SAMPLES = 1 << 18  # of the ring of one microphone: 5 s at 48 kHz
