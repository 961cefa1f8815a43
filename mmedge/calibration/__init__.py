"""The constant delay between a camera and a microphone: measured with flash and beep, stored, applied."""
