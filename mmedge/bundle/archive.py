"""Members of a bundle: a zip file, or a folder with the same content, read with bounds."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

import msgspec

from mmedge.bundle.container import (
    CHUNK,
    DAMAGE,
    MAX_ALL_BYTES,
    MAX_MEMBER_BYTES,
    MAX_MEMBERS,
    MAX_WEIGHTS_BYTES,
    Container,
    FolderContainer,
    ZipContainer,
    check_total,
    check_weights,
    read_bounded,
    safe_member,
)
from mmedge.bundle.decoding import decode_manifest
from mmedge.bundle.manifest import Manifest
from mmedge.bundle.onnx_file import MARK, Outside, is_weights, names_files, outside_weights, weights_member
from mmedge.bundle.order import check_tasks, stage_order
from mmedge.bundle.weights import ALIGNMENT, Mapped
from mmedge.errors import BundleError
from mmedge.files import open_plain, replacing
from mmedge.types import AnyArray

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 22
# One date for all members: equal content gives equal bytes.
_DATE = (2020, 1, 1, 0, 0, 0)
_PADDING = b"\x35\xd9"  # the kind of extra field that Android's zipalign writes
_WORTH_PACKING = 0.75  # weights of networks hardly shrink; text does
_LARGE = 1 << 30  # bytes from which on a member of a zip file has sizes of 64 bits; above 2^31 it must


class Archive:
    """Verified access to the members of one bundle.

    Args:
        path: The ``.mmedge`` file, or a folder with the same members.

    Raises:
        BundleError: If it is missing, truncated, has a hostile member name or a bad manifest.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._members: Container
        try:
            if not self.path.exists():
                raise BundleError("bundle not found", where=str(path), fix="check the path, or make one: mmedge demo")
            _check_kind(self.path)
            self._members = FolderContainer(self.path) if self.path.is_dir() else ZipContainer(self.path)
        except DAMAGE as error:
            raise BundleError(
                f"not a bundle or truncated: {error}", where=str(path), fix="copy it again, or export it again"
            ) from error
        try:
            if isinstance(self._members, ZipContainer) and MANIFEST not in self._members.names():
                raise BundleError(
                    f"a zip file, but not a bundle: '{MANIFEST}' is missing", where=str(path), fix="name a .mmedge file"
                )
            raw = b"".join(read_bounded(self._members, MANIFEST, MAX_MANIFEST_BYTES, self.path))
            self.manifest_sha256 = hashlib.sha256(raw).hexdigest()
            self.manifest = self._checked(decode_manifest(raw))
        except BaseException:
            self.close()
            raise
        self._networks = {variant.file for variant in self.manifest.variants}

    def _checked(self, manifest: Manifest) -> Manifest:
        stage_order(manifest.stages)
        check_tasks(manifest)
        for name in manifest.files:
            if not safe_member(name):
                raise BundleError(
                    f"member '{name}' points outside the bundle",
                    where=f"{MANIFEST}: $.files",
                    fix="do not use this file",
                )
        if len(manifest.files) > MAX_MEMBERS:
            raise BundleError(
                f"{len(manifest.files)} members, the limit is {MAX_MEMBERS}",
                where=f"{MANIFEST}: $.files",
                fix="do not use this file",
            )
        if isinstance(self._members, FolderContainer):  # a file that is not there is an error of its own
            sizes = {True: 0, False: 0}
            for name, entry in manifest.files.items():
                sizes[is_weights(name)] += entry.bytes
            check_weights(sizes[True], self.path)
            check_total(sizes[False], MAX_ALL_BYTES, self.path)
        return manifest

    def read(self, name: str) -> bytes:
        """Return a listed member after checking its size and SHA-256.

        Raises:
            BundleError: If it is missing, damaged or not the file the manifest describes; or if it is a network whose
                weights lie outside of the bundle.
        """
        raw = b"".join(self._verified(name, MAX_MEMBER_BYTES))
        if name in self._networks:
            self._outside(name, raw)
        return raw

    def weights(self, name: str, raw: bytes) -> dict[str, AnyArray]:
        """Return the weights of a network that lie in a member of their own, mapped, after checking its SHA-256.

        Args:
            name: The network.
            raw: What ``read`` returned of it.

        Returns:
            Initializer -> its values, read-only [its shape] in its dtype; none where the network holds its weights.

        Raises:
            BundleError: As ``read`` does, or if the member is packed, or ends before a weight does.
        """
        found = self._outside(name, raw)
        if not found:
            return {}
        member = weights_member(name)
        entry = self.manifest.files[member]
        try:
            part = Mapped(*self._members.place(member))
            try:
                digest = part.sha256()
                if part.size != entry.bytes or digest != entry.sha256:
                    raise self._differs(member, digest)
                return {weight.name: part.array(weight) for weight in found}
            finally:
                part.close()
        except (KeyError, *DAMAGE) as error:
            raise BundleError(
                f"member '{member}' is missing or damaged: {error}",
                where=str(self.path),
                fix="copy or export the bundle again",
            ) from error

    def check(self, name: str) -> None:
        """Check a listed member as ``read`` does, but keep none of it, unless it is a network that may name files.

        Raises:
            BundleError: As ``read`` does.
        """
        rest, named = b"", False
        for chunk in self._verified(name, MAX_MEMBER_BYTES if not is_weights(name) else MAX_WEIGHTS_BYTES):
            named = named or MARK in rest + chunk
            rest = chunk[-len(MARK) :]
        if named and name in self._networks:
            self.read(name)

    def _verified(self, name: str, limit: int) -> Iterator[bytes]:
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(
                f"member '{name}' is not listed in the manifest", where=str(self.path), fix="name one of $.files"
            )
        digest, size = hashlib.sha256(), 0
        for chunk in read_bounded(self._members, name, min(entry.bytes, limit), self.path):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if size != entry.bytes or digest.hexdigest() != entry.sha256:
            raise self._differs(name, digest.hexdigest())

    def _differs(self, name: str, found: str) -> BundleError:
        return BundleError(
            f"member '{name}' differs from the manifest (sha256 {found[:12]}..., "
            f"expected {self.manifest.files[name].sha256[:12]}...)",
            where=f"{self.path}: $.files.{name}",
            fix="copy or export the bundle again",
        )

    def _outside(self, name: str, raw: bytes) -> tuple[Outside, ...]:
        """Return the weights of a network that lie in its own member; BundleError if it names any other file."""
        own = weights_member(name)
        is_served = all(variant.target == "cpu" for variant in self.manifest.variants if variant.file == name)
        may_lie_there = own in self.manifest.files and is_served
        try:
            if not names_files(raw):
                return ()
            found = outside_weights(raw) if may_lie_there else ()
        except ValueError as error:
            raise BundleError(
                f"network '{name}' is not a valid ONNX file: {error}",
                where=str(self.path),
                fix="export the bundle again",
            ) from error
        if not may_lie_there or any(weight.location != own for weight in found):
            raise BundleError(
                f"network '{name}' refers to weight files outside the bundle",
                where=str(self.path),
                fix="do not use this file; a bundle that mmedge exports holds its weights",
            )
        return found

    def close(self) -> None:
        """Close the file; idempotent."""
        self._members.close()


def _check_kind(path: Path) -> None:
    """Raise BundleError for what is no bundle by what kind of file it is; a device may have no end."""
    if path.is_dir():
        if (path / MANIFEST).exists():
            return
        bundles = sorted(path.glob("*.mmedge"))
        fix = f"name {bundles[0]}" if bundles else "name a .mmedge file, or a folder with all that is inside of one"
        raise BundleError(f"a folder, but not a bundle: '{MANIFEST}' is missing", where=str(path), fix=fix)
    if not path.is_file():
        raise BundleError("neither a file nor a folder", where=str(path), fix="name a .mmedge file")
    with open_plain(path) as file:
        start = file.read(4096)
    if start.startswith(b"PK"):
        return
    if not start:
        raise BundleError("not a bundle: the file is empty", where=str(path), fix="copy it again, or export it again")
    if path.suffix.lower() == ".onnx":
        raise BundleError(
            "not a bundle but a network", where=str(path), fix=f"make a bundle from it: mmedge new DIR --from {path}"
        )
    if path.suffix.lower() == ".toml":
        raise BundleError(
            "not a bundle but a recipe", where=str(path), fix=f"make a bundle from it: mmedge export {path}"
        )
    fix = "name a .mmedge file, or a network whose name ends in .onnx"
    raise BundleError("not a bundle: not a zip file", where=str(path), fix=fix)


def write_archive(path: str | Path, manifest: Manifest, members: Mapping[str, bytes | Path]) -> Path:
    """Write a bundle atomically; equal content gives equal bytes.

    Args:
        path: Where to; an existing file is replaced in one step.
        manifest: Its ``files`` must list exactly ``members``.
        members: Name -> content; a file of weights is copied piece by piece, as it is, so that it can be mapped.

    Returns:
        The path written.

    Raises:
        BundleError: If manifest and members disagree.
    """
    path = Path(path)
    if set(manifest.files) != set(members):
        raise BundleError(
            "manifest.files does not match the members", where=str(path), fix="list every member, and nothing else"
        )
    decode_manifest(encoded := msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, mode=0o644) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in [(MANIFEST, encoded), *sorted(members.items())]:
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            if isinstance(content, Path):
                _store(archive, file, info, content)
            else:
                info.compress_type = zipfile.ZIP_DEFLATED if _shrinks(content) else zipfile.ZIP_STORED
                archive.writestr(info, content)
    return path


def _shrinks(content: bytes) -> bool:
    """Tell whether packing is worth it: unpacking takes ten times as long as the hash, at every start."""
    return len(zlib.compress(content)) < _WORTH_PACKING * len(content)


def _store(archive: zipfile.ZipFile, file: BinaryIO, info: zipfile.ZipInfo, content: Path) -> None:
    """Copy a file into a zip file as it is, where its first byte is aligned."""
    info.file_size = content.stat().st_size
    is_large = info.file_size >= _LARGE
    begin = file.tell() + 30 + len(info.filename.encode()) + (20 if is_large else 0) + 4
    gap = -begin % ALIGNMENT
    info.extra = _PADDING + gap.to_bytes(2, "little") + bytes(gap)
    with content.open("rb") as source, archive.open(info, "w", force_zip64=is_large) as target:
        copyfileobj(source, target, CHUNK)
