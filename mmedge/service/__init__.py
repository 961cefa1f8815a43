"""A run as a service: what the service manager is told, and the unit that starts it."""

from mmedge.service.notify import Notifier
from mmedge.service.unit import Unit

__all__ = ["Notifier", "Unit"]
