"""Ask TensorRT's own parser what it takes of a network, in a child process: it may crash, and takes no GPU.

The child is ``python -m mmedge.engine.parse_check FOLDER``: it reads ``model.onnx`` there and writes ``answer.json``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from mmedge.engine.tensorrt_loader import load_tensorrt, make_logger, tensorrt_choice
from mmedge.errors import MissingDependencyError
from mmedge.files import scratch
from mmedge.learn import learn

_TIMEOUT_S = 300.0


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX node that the parser refuses; all but ``reason`` are empty where it is the file as a whole."""

    name: str = ""
    op: str = ""
    reason: str


class ParserAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a parser said of a network: it takes it where nothing is refused.

    Attributes:
        module: ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: Its full version.
    """

    module: str
    version: str
    refused: tuple[Refused, ...] = ()


def ask_parser(onnx: bytes, *, timeout_s: float = _TIMEOUT_S) -> ParserAnswer | None:
    """Return what the parser of the TensorRT that is installed says of a network; None where there is none.

    Args:
        onnx: The serialised network, without external data.
        timeout_s: A parser that takes longer is stopped, and refuses the network.

    Example:
        >>> answer = ask_parser(Path("model.onnx").read_bytes())  # doctest: +SKIP
        >>> [node.op for node in answer.refused]  # doctest: +SKIP
        ['DFT']
    """
    chosen = tensorrt_choice()
    if chosen is None:
        return None
    with scratch() as folder:
        (folder / "model.onnx").write_bytes(onnx)
        try:
            # Its working folder is its own: a `tensorrt.py` beside the user's script must not be imported.
            done = subprocess.run(
                [sys.executable, "-m", "mmedge.engine.parse_check", str(folder)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=folder,
                timeout=timeout_s,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"the parser did not answer within {timeout_s:.0f} s"
            return ParserAnswer(module=chosen, version="?", refused=(Refused(reason=reason),))
        answer = folder / "answer.json"
        if answer.is_file():
            return msgspec.json.decode(answer.read_bytes(), type=learn(ParserAnswer | None))
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
    reason = f"the parser crashed ({how})"
    return ParserAnswer(module=chosen, version="?", refused=(Refused(reason=reason),))


def ask_here(onnx: bytes, path: str | None = None) -> ParserAnswer | None:
    """Do what ``ask_parser`` does in this process, which a crash of the parser ends.

    Args:
        onnx: The serialised network.
        path: Its file, where it has external data.
    """
    try:
        trt = load_tensorrt()
    except MissingDependencyError:
        return None  # installed, but its libraries are not
    log: list[str] = []
    logger = make_logger(trt, lambda severity, text: log.append(text) if severity <= 1 else None)
    try:
        builder = trt.module.Builder(logger)
    except Exception:  # pybind's TypeError, or what CUDA says: this one needs a GPU
        return None
    # Strongly typed, as engines are built: types are what the file says.
    flags = trt.module.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED) if "strongly_typed_flag" in trt.caps else 0)
    parser = trt.module.OnnxParser(network, logger)
    refused: tuple[Refused, ...] = ()
    if not (parser.supports_model_v2(onnx) if path is None else parser.supports_model_v2(onnx, path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        refused = tuple(Refused(name=e.node_name(), op=e.node_operator(), reason=_reason(e.desc())) for e in errors)
        refused = refused or (Refused(reason="; ".join(log[-3:]) or "no reason given"),)
    return ParserAnswer(module=trt.name, version=trt.version, refused=refused)


def _reason(text: str) -> str:
    if "Plugin not found" in text:
        return "no such operator in TensorRT"
    return "not supported" if text == "false" else text.removeprefix("Assertion failed: ")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "answer.json").write_bytes(msgspec.json.encode(ask_here((place / "model.onnx").read_bytes())))
