"""Starts a thread as it is imported, as a library may."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
