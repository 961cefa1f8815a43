"""What this machine has, what is wrong with it, and how to fix it."""

from mmedge.doctor.probe import collect
from mmedge.doctor.report import Check, DoctorReport
from mmedge.doctor.table import print_report

__all__ = ["Check", "DoctorReport", "collect", "print_report"]
