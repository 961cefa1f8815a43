"""Where the members of a bundle lie, a zip file or a folder: read in pieces, within bounds.

What is announced is bounded before anything is read: how many members, how large each and all of them, and how much
larger than the file itself. What comes is bounded again, since an announcement may lie.
"""

from __future__ import annotations

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from mmedge.bundle.onnx_file import is_weights
from mmedge.errors import BundleError
from mmedge.files import open_plain

MAX_MEMBERS = 4096
MAX_MEMBER_BYTES, MAX_ALL_BYTES = 1 << 31, 1 << 32
# Unpacked, all members together may have this many bytes, and this many times those of the file. Weights hardly
# shrink; text shrinks to a tenth; only what is almost empty shrinks more, and that may be small.
FREE_BYTES, MAX_RATIO = 1 << 26, 20
# Weights beside a network lie there as they are, so that no file of few bytes becomes many; they are hashed in pieces
# and mapped. All of them together may have this many bytes.
MAX_WEIGHTS_BYTES = 1 << 36
CHUNK = 1 << 18  # larger ones would leave as large a hole in the memory of whoever has read a bundle
# What reading a damaged zip file may raise.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)
_HOSTILE = "do not use this file"
_AGAIN = "copy or export the bundle again"
_END, _END_BYTES = b"PK\5\6", 22  # of a zip file: its last record, which says where its list of members lies
_LARGER, _LARGER_BYTES = b"PK\6\7", 20  # in front of it in files of more than 2 GB: says where a larger one lies
_LARGER_END, _LARGER_END_BYTES = b"PK\6\6", 56  # the larger one
_LOCAL, _LOCAL_BYTES = b"PK\3\4", 30  # in front of each member, at least


def safe_member(name: str) -> bool:
    """Tell whether a member name stays inside the bundle, on every platform."""
    path = PurePosixPath(name)
    clean = name.isprintable() and "\\" not in name and ":" not in name and len(name) < 256
    return bool(name) and clean and not path.is_absolute() and ".." not in path.parts


class Container(Protocol):
    """Members by name."""

    def size(self, name: str) -> int:
        """Return the announced size of a member in bytes; KeyError or FileNotFoundError without one."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a member piece by piece, each of at most ``CHUNK`` bytes."""

    def place(self, name: str) -> tuple[Path, int, int]:
        """Return where a member lies as it is: file, first byte, size; BundleError if it is packed."""

    def close(self) -> None:
        """Close the file; idempotent."""


class ZipContainer:
    """Members of a zip file, whose list is checked before anything is unpacked.

    Raises:
        BundleError: If a name is hostile or twice there, or the list breaks a bound.
        zipfile.BadZipFile: And others of ``DAMAGE``, if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _check_end(path)
        self._zip = zipfile.ZipFile(path)
        try:
            self._check()
        except BaseException:
            self._zip.close()
            raise

    def _check(self) -> None:
        found, size = self._zip.infolist(), self._path.stat().st_size
        names = [info.filename for info in found]
        for info in found:
            if not safe_member(info.filename):
                self._fail(f"member '{info.filename}' points outside the bundle")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                self._fail(f"member '{info.filename}' is packed by method {info.compress_type}, not by deflate")
        if len(names) != len(set(names)):
            self._fail("two members have the same name")
        if len(names) > MAX_MEMBERS:
            self._fail(f"{len(names)} members, the limit is {MAX_MEMBERS}")
        plain = [info for info in found if is_weights(info.filename) and info.compress_type == zipfile.ZIP_STORED]
        check_weights(sum(info.file_size for info in plain), self._path)
        packed = sum(info.compress_size for info in plain)
        check_total(sum(info.file_size for info in found if info not in plain), size - packed, self._path)
        end = 0
        for info in sorted(found, key=lambda info: info.header_offset):
            if info.header_offset < end:
                self._fail(f"member '{info.filename}' lies inside of another one")
            end = info.header_offset + _LOCAL_BYTES + info.compress_size
        if end > size:
            raise zipfile.BadZipFile("a member ends behind the end of the file")

    def _fail(self, message: str) -> NoReturn:
        raise BundleError(message, where=str(self._path), fix=_HOSTILE)

    def names(self) -> list[str]:
        """Return the names of all members."""
        return self._zip.namelist()

    def size(self, name: str) -> int:
        """Return the announced size of a member in bytes."""
        return self._zip.getinfo(name).file_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a member piece by piece."""
        with self._zip.open(name) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def place(self, name: str) -> tuple[Path, int, int]:
        """Return where a member lies as it is: file, first byte, size."""
        info = self._zip.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise BundleError(
                f"member '{name}' is packed, so that it cannot be mapped", where=str(self._path), fix=_AGAIN
            )
        with open_plain(self._path) as file:
            file.seek(info.header_offset)
            head = file.read(_LOCAL_BYTES)
        if len(head) < _LOCAL_BYTES or not head.startswith(_LOCAL):
            raise zipfile.BadZipFile(f"member '{name}' does not begin where the list of members says")
        own_name, extra = struct.unpack("<HH", head[26:30])
        return self._path, info.header_offset + _LOCAL_BYTES + own_name + extra, info.file_size

    def close(self) -> None:
        """Close the file; idempotent."""
        self._zip.close()


class FolderContainer:
    """Members in a folder: plain files, at or below it; a pipe or device is never opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self, name: str) -> int:
        """Return the size of a member in bytes."""
        return self._look(name)[1].st_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a member piece by piece."""
        with open_plain(self._look(name)[0]) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def place(self, name: str) -> tuple[Path, int, int]:
        """Return where a member lies as it is: file, first byte, size."""
        file, info = self._look(name)
        return file, 0, info.st_size

    def _look(self, name: str) -> tuple[Path, os.stat_result]:
        file = (self._path / name).resolve()
        if not file.is_relative_to(self._path.resolve()):
            raise BundleError(
                f"member '{name}' points outside the bundle", where=str(self._path), fix="do not use this folder"
            )
        info = file.lstat()
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(name)
        if not stat.S_ISREG(info.st_mode):
            raise BundleError(
                f"member '{name}' is a pipe, socket or device", where=str(self._path), fix="do not use this folder"
            )
        return file, info

    def close(self) -> None:
        """Do nothing: files are open while they are read."""


def read_bounded(container: Container, name: str, limit: int, where: Path) -> Iterator[bytes]:
    """Yield a member piece by piece.

    Args:
        container: Where it lies.
        name: Its name.
        limit: Bytes it may have.
        where: The bundle, for messages.

    Raises:
        BundleError: If it is missing, damaged or larger.
    """
    try:
        size = container.size(name)
        if size <= limit:
            size = 0
            for chunk in container.chunks(name):
                size += len(chunk)
                if size > limit:
                    break
                yield chunk
    except (KeyError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise BundleError(f"member '{name}' is missing", where=str(where), fix=_AGAIN) from error
    except DAMAGE as error:
        raise BundleError(f"member '{name}' is damaged: {error}", where=str(where), fix=_AGAIN) from error
    if size > limit:
        raise BundleError(f"member '{name}' has {size} bytes, the limit is {limit}", where=str(where), fix=_AGAIN)


def check_total(unpacked: int, packed: int, where: Path) -> None:
    """Raise BundleError if members of ``unpacked`` bytes are too many for a bundle of ``packed`` bytes."""
    limit = min(MAX_ALL_BYTES, FREE_BYTES + MAX_RATIO * packed)
    if unpacked > limit:
        raise BundleError(
            f"its members have {unpacked} bytes unpacked, the limit for a file of {packed} bytes is {limit}",
            where=str(where),
            fix=f"{_HOSTILE}; of your own, leave out what is empty",
        )


def check_weights(size: int, where: Path) -> None:
    """Raise BundleError if the weights beside networks are larger than any bundle's."""
    if size > MAX_WEIGHTS_BYTES:
        raise BundleError(
            f"the weights beside its networks have {size} bytes, the limit is {MAX_WEIGHTS_BYTES}",
            where=str(where),
            fix=_HOSTILE,
        )


def _check_end(path: Path) -> None:
    """Raise BundleError if the list of members is too long to be read, or BadZipFile without one."""
    with open_plain(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES - (1 << 16) - _LARGER_BYTES))  # a comment may be as long as it can be
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < _END_BYTES:
            raise zipfile.BadZipFile("the end of the file is missing")
        members, list_bytes = struct.unpack("<HL", tail[at + 10 : at + 16])
        if tail[max(0, at - _LARGER_BYTES) :].startswith(_LARGER):  # counts whatever the shorter one says
            place = size - len(tail) + at - _LARGER_BYTES - _LARGER_END_BYTES
            (said,) = struct.unpack("<Q", tail[at - 12 : at - 4])
            file.seek(max(0, place))
            record = file.read(_LARGER_END_BYTES)
            # Readers differ over which record counts where this is not so.
            if said != place or not record.startswith(_LARGER_END) or len(record) < _LARGER_END_BYTES:
                raise BundleError("its list of members lies in two places", where=str(path), fix=_HOSTILE)
            members, list_bytes = struct.unpack("<QQ", record[32:48])
    if members > MAX_MEMBERS or list_bytes > MAX_MEMBERS * 512:
        raise BundleError(
            f"its list of members is too long, the limit is {MAX_MEMBERS} members", where=str(path), fix=_HOSTILE
        )
