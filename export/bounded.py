"""Networks as files come from anywhere: what reads, changes and first runs them does so in a child, within bounds."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mmedge.bundle.container import MAX_WEIGHTS_BYTES
from mmedge.engine.parse_check import ask_here
from mmedge.engine.tensorrt_loader import load_tensorrt, tensorrt_choice
from mmedge.errors import ConfigError, MissingDependencyError, MmedgeError
from mmedge.files import file_hash
from mmedge.fusion.bounded import bound_self, run_bounded
from mmedge.fusion.trial import has_passed, note_passed
from mmedge.ipc.control import pack, unpack
from mmedge.ipc.worker import Link
from mmedge.learn import learn
from mmedge.version import __version__

if TYPE_CHECKING:
    from .brought.made import NewReport
    from .recipe import Recipe

# Measured with good networks: `mmedge new` takes 19 s of processor time and 850 MB for 100 MB, 6 s for 9 MB; on a busy
# machine the same work takes up to twice as long.
_CPU_S, _CPU_S_PER_MB = 10.0, 0.6
_MB, _MB_PER_MB = 384, 14.0
_PARSER_CPU_S, _PARSER_MB = 20.0, 128  # beside TensorRT's libraries
_FILE_BYTES = 1 << 26  # what is written beside copies of the networks
_CPU_S_PER_READ_MB = 0.02  # each byte is hashed and copied some ten times, also those of a hole
_is_child = False


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    work: str
    where: str
    cpu_s: float
    memory_mb: float
    file_bytes: int


def inspect_network(file: Path) -> dict[str, Any]:
    """Return what ``inspect_onnx`` does, ``classes``: how many the file names, and ``parser``: who decided.

    Where TensorRT is installed, its parser decides what is refused, within bounds of its own; else ``parser`` is None.

    Raises:
        ConfigError: If the file is not a network, or reading it breaks the bounds.
    """
    found: dict[str, Any] = within("inspect", [file], file)
    lines = found.pop("lines")
    answer: dict[str, Any] | None = None
    if (module := tensorrt_choice()) is not None:
        try:
            answer = within("parser", [file], file, cpu_s=_PARSER_CPU_S, memory_mb=_PARSER_MB)
        except ConfigError as error:  # the bounds
            answer = {"module": module, "version": "?", "refused": [{"reason": error.message}]}
    if answer is not None:
        found["findings"] = _decided(found["findings"], answer["refused"], lines)
    return {**found, "parser": answer and {name: answer[name] for name in ("module", "version")}}


def _decided(
    findings: Sequence[Mapping[str, Any]], refused: Sequence[Mapping[str, str]], lines: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """Return findings of our list as the parser judges them: only what it refuses is an error."""
    known = {finding["node"]: finding for finding in findings if finding["level"] == "error"}
    stands: dict[str, Mapping[str, Any]] = {}
    for name, op, reason in dict.fromkeys(
        tuple(node.get(key, "") for key in ("name", "op", "reason")) for node in refused
    ):
        told = {
            "rule": "parser",
            "message": f"{op}: {reason}" if op else reason,
            "fix": "write it with other operators",
        }
        source = {"source": lines[name]} if name in lines else {}
        # The list knows what to do about many operators that the parser only names.
        own = [known[name]] if name in known else []
        if not name:  # a node without one, which our list calls by its output, or the file as a whole
            own = [f for label, f in known.items() if label.startswith(f"{op} -> ")] or list(known.values())
        own = own or [{"level": "error", "node": name or "graph", **told, **source}]
        stands |= {finding["node"]: finding for finding in own}
    # The parser may stop at the first of a kind: what our list says of others is then right, too.
    kinds = {(finding["rule"], finding["message"]) for finding in stands.values()}
    stands |= {node: finding for node, finding in known.items() if (finding["rule"], finding["message"]) in kinds}
    return [*stands.values(), *(finding for finding in findings if finding["level"] != "error")]


def lines_of_network(file: Path) -> dict[str, str]:
    """Return what ``source_lines`` does.

    Raises:
        ConfigError: If the file is not a network, or reading it breaks the bounds.
    """
    found: dict[str, str] = within("lines", [file], file)
    return found


def count_multiply_adds(file: Path) -> int | None:
    """Return what ``multiply_adds`` does.

    Raises:
        ConfigError: If the file is not a network, or reading it breaks the bounds.
    """
    found: int | None = within("multiply_adds", [file], file)
    return found


def new_from_networks(
    folder: Path,
    files: Sequence[Path],
    tokenizer: Path | None = None,
    options: Mapping[str, Sequence[str]] | None = None,
) -> NewReport:
    """Do what ``from_networks`` does; what is half made is removed, whatever ends it.

    Raises:
        ConfigError: As ``from_networks`` raises it, or if a network breaks the bounds.
    """
    from .brought.made import NewReport

    was_there, was_empty = folder.exists(), folder.is_dir() and not any(folder.iterdir())
    try:
        return msgspec.convert(
            within("new", files, (folder, list(files), tokenizer, options)),
            learn(NewReport),
            dec_hook=lambda kind, text: kind(text),
        )
    except _OutOfBoundsError:
        if was_empty or not was_there:
            _remove(folder, keep=was_there)
        raise


def try_recipe(recipe: Recipe) -> None:
    """Bring a recipe's networks in a child first, unless that went well before.

    Raises:
        ConfigError: As ``bring`` raises it, or if a network breaks the bounds.
    """
    # What ships with this package is no stranger's.
    names = [stage.onnx for stage in recipe.stages.values() if stage.onnx and not stage.onnx.startswith("mmedge:")]
    files = [recipe.path(name) for name in names]
    if _is_child or not files:
        return
    _check_files(files)
    digest = hashlib.sha256(f"{__version__} {version('onnx')} {recipe.sha256}".encode())
    for file in (*files, *(other for own in files for other in _weight_files(own))):
        digest.update(file_hash(file).encode())
    key = digest.hexdigest()
    if not has_passed(key):
        within("bring", files, recipe)
        note_passed(key)


class _OutOfBoundsError(ConfigError):
    """A network took more than it may."""


def within(work: str, files: Sequence[Path], argument: object, *, cpu_s: float = 0.0, memory_mb: float = 0.0) -> Any:
    """Return what ``_WORK[work](argument)`` returns, in a child that may take so much more than its files need."""
    if _is_child:
        return _WORK[work][1](argument)
    held, read = _check_files(files)
    size_mb, read_mb, where = held / 1e6, read / 1e6, ", ".join(map(str, files))
    order = _Order(
        work=work,
        where=where,
        cpu_s=_CPU_S + _CPU_S_PER_MB * size_mb + _CPU_S_PER_READ_MB * (read_mb - size_mb) + cpu_s,
        memory_mb=_MB + _MB_PER_MB * size_mb + memory_mb,
        file_bytes=_FILE_BYTES + round(2e6 * read_mb),
    )

    def over(what: str) -> MmedgeError:
        return _OutOfBoundsError(
            f"the network {what}",
            where=where,
            fix="do not use it, unless you know where it is from; if you do, export it smaller",
        )

    handle = os.memfd_create("mmedge-work", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            pickle.dump(argument, file)  # of ours: the child alone reads it
        run_bounded(
            "mmedge.export.bounded:main",
            pack(order),
            name="its first reading",
            cpu_s=order.cpu_s,
            memory_mb=order.memory_mb,
            take=lambda _: None,
            over=over,
            fds=[handle],
        )
        os.lseek(handle, 0, os.SEEK_SET)
        with os.fdopen(os.dup(handle), "rb") as answer:
            return json.loads(answer.read())
    finally:
        os.close(handle)


def main(link: Link) -> None:
    """Work on networks within bounds; the child's entry."""
    global _is_child
    _is_child = True
    order = unpack(link.payload, _Order)
    with os.fdopen(link.fds[0], "r+b") as file:
        file.seek(0)
        argument = pickle.load(file)
        modules, function = _WORK[order.work]
        for module in modules:  # what they take is not the network's
            import_module(module, __package__)
        if order.work == "parser":
            with suppress(MissingDependencyError):  # which the work finds, too
                load_tensorrt()
        bound_self(order.cpu_s, order.memory_mb, order.file_bytes)
        try:
            answer = json.dumps(function(argument)).encode()  # names of files need not be UTF-8
        except MemoryError as error:
            raise _out_of_memory(order) from error
        except MmedgeError as error:
            if any(words in error.message for words in _NO_MEMORY):
                raise _out_of_memory(order) from error
            raise
        file.seek(0)
        file.truncate()
        file.write(answer)


_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "does not fit into memory")


def _out_of_memory(order: _Order) -> ConfigError:
    return ConfigError(
        f"the network needs more than {order.memory_mb:.0f} MB of memory for its first reading",
        where=order.where,
        fix="do not use it, unless you know where it is from; if you do, export it smaller",
    )


def _check_files(files: Sequence[Path]) -> tuple[int, int]:
    """Return what networks with the weights beside them take on the disk, and their bytes, within what a bundle holds.

    ConfigError for what is no file.
    """
    held = read = 0
    for file in files:
        try:
            info = file.stat()
            if not stat.S_ISREG(info.st_mode):
                raise ConfigError("not a file", where=str(file), fix="name an ONNX file")
            infos = [info]
            if info.st_size < _FILE_BYTES:  # larger ones hold their weights themselves
                infos += [other.stat() for other in _weight_files(file)]
            held += sum(map(_bytes, infos))
            read += sum(own.st_size for own in infos)
        except OSError as error:
            raise ConfigError(
                f"cannot read the network: {error.strerror}", where=str(file), fix="check the path"
            ) from error
    return held, max(held, min(read, MAX_WEIGHTS_BYTES))


def _weight_files(file: Path) -> list[Path]:
    from .onnx.network_file import weight_files

    return weight_files(file)


def _bytes(info: os.stat_result) -> int:
    return min(info.st_size, info.st_blocks * 512)  # a hole in a file costs its maker nothing


def _inspect(file: Path) -> dict[str, object]:
    from .brought.infer import class_names
    from .onnx.lint import inspect_onnx, lines_of
    from .onnx.network_file import load_network
    from .onnx.state import describe_network

    model = load_network(file, largest_bytes=0)
    document = inspect_onnx(file) | describe_network(model)
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    return {**document, "classes": len(class_names(metadata)) or None, "lines": lines_of(model)}


def _multiply_adds(file: Path) -> int | None:
    from .onnx.multiply_adds import multiply_adds
    from .onnx.network_file import load_network

    return multiply_adds(load_network(file, largest_bytes=0))


def _parser(file: Path) -> dict[str, Any] | None:
    answer = ask_here(file.read_bytes(), str(file) if _weight_files(file) else None)
    if answer and any(words in node.reason for node in answer.refused for words in _NO_MEMORY):
        raise MemoryError  # the bound was met: that is not what the parser thinks of the network
    found: dict[str, Any] | None = msgspec.to_builtins(answer)
    return found


def _lines(file: Path) -> dict[str, str]:
    from .onnx.lint import source_lines

    return source_lines(file)


def _new(
    argument: tuple[Path, list[Path], Path | None, Mapping[str, Sequence[str]] | None],
) -> dict[str, object]:
    from .brought.new import from_networks

    made: dict[str, object] = msgspec.to_builtins(from_networks(*argument), enc_hook=str)
    return made


def _bring(recipe: Recipe) -> None:
    from .brought.brought import bring, listed_problem

    for model in bring(recipe)[1].values():
        listed_problem(model)


def _compare(argument: Any) -> dict[str, Any]:
    from .compare_files import compare_here

    return compare_here(argument)


def _remove(folder: Path, *, keep: bool) -> None:
    for child in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    if not keep and folder.is_dir():
        folder.rmdir()


# Work -> modules that it imports, and the function.
_WORK: dict[str, tuple[tuple[str, ...], Callable[[Any], object]]] = {
    "inspect": ((".onnx.lint", ".onnx.state", ".brought.infer"), _inspect),
    "parser": (("mmedge.engine.parse_check",), _parser),
    "lines": ((".onnx.lint",), _lines),
    "multiply_adds": ((".onnx.multiply_adds",), _multiply_adds),
    "new": ((".brought.new",), _new),
    "bring": ((".brought.brought",), _bring),
    "compare": ((".compare_files",), _compare),
}
