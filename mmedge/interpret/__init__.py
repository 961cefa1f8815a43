"""What outputs mean: classification, verification, smoothing."""

from mmedge.interpret.task import UNDEFINED, Classification, Interpreter, Verification, make_interpreter

__all__ = ["UNDEFINED", "Classification", "Interpreter", "Verification", "make_interpreter"]
