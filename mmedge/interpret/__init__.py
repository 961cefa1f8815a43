"""Interpret outputs: classification, verification, detection, and their smoothing."""

from mmedge.interpret.kinds import make_interpreter
from mmedge.interpret.layouts import recognise
from mmedge.interpret.task import UNDEFINED, Interpreter

__all__ = ["UNDEFINED", "Interpreter", "make_interpreter", "recognise"]
