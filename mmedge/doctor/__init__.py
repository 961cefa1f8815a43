"""What this machine has, what is wrong with it, and how to fix it."""

from mmedge.doctor.probe import collect
from mmedge.doctor.report import Check, Report
from mmedge.doctor.table import print_report

__all__ = ["Check", "Report", "collect", "print_report"]
