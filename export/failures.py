"""What other people's code raises during an export, in our words: whose line or node it was, and what to do."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmedge.errors import CheckError, ConfigError, EngineError, MmedgeError

from .recipe import Recipe
from .user_code import is_user_file

_TOOLS = ("onnx", "onnxruntime", "onnxscript", "onnx_ir", "torch", "google", "numpy", "tokenizers", "safetensors")
_OWN = Path(__file__).parent


@contextmanager
def own_words(step: str, recipe: Recipe) -> Iterator[None]:
    """Turn what a step's tools and the user's code raise into errors of the export.

    Args:
        step: Named where nothing more is known.
        recipe: Whose export it is.

    Raises:
        ConfigError: For an exception of the user's code, with its line; and for what a tool cannot do.
        CheckError: For a network that cannot be run.
    """
    try:
        yield
    except EngineError as error:
        raise CheckError(error.message, where=error.where or f"step '{step}'", fix=error.fix) from error
    except (MmedgeError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        line = user_line_of(error)
        told = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        if line is not None:
            raise ConfigError(told, where=f"step '{step}', {line}", fix="correct this line") from error
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in _TOOLS:
            raise  # a shortage of the machine, or a bug of ours
        raise ConfigError(
            f"{type(error).__module__.partition('.')[0]} cannot do it: {told}",
            where=f"step '{step}'",
            fix="see `mmedge inspect` on the network, and export it anew with other operators or a newer opset",
        ) from error


def user_line_of(error: BaseException) -> str | None:
    """Return the innermost line of the user's own code that an exception came through, ``file:line``."""
    from .onnx.clean import short_line

    if isinstance(error, SyntaxError) and error.filename and is_user_file(Path(error.filename)):
        return short_line(error.filename, error.lineno or 0)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_absolute() and file.is_file() and is_user_file(file) and not is_ours(file):
            return short_line(frame.filename, frame.lineno or 0)
    return None


def is_ours(file: str | Path) -> bool:
    """Tell whether a source file belongs to this package."""
    import mmedge

    file = Path(file)
    return any(file.is_relative_to(home) for home in (_OWN, Path(mmedge.__file__).parent))
