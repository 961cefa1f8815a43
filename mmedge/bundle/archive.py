"""Members of a bundle: a zip file, or a folder with the same content, read with bounds."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from mmedge.bundle.container import (
    DAMAGE,
    MAX_ALL_BYTES,
    MAX_MEMBER_BYTES,
    MAX_MEMBERS,
    Container,
    FolderContainer,
    ZipContainer,
    check_total,
    open_plain,
    read_bounded,
    safe_member,
)
from mmedge.bundle.decoding import decode_manifest
from mmedge.bundle.manifest import Manifest
from mmedge.bundle.onnx_file import MARK, names_files
from mmedge.bundle.order import check_tasks, stage_order
from mmedge.errors import BundleError
from mmedge.files import replacing

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 22
# One date for all members: equal content gives equal bytes.
_DATE = (2020, 1, 1, 0, 0, 0)


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
            check_total(sum(entry.bytes for entry in manifest.files.values()), MAX_ALL_BYTES, self.path)
        return manifest

    def read(self, name: str) -> bytes:
        """Return a listed member after checking its size and SHA-256.

        Raises:
            BundleError: If it is missing, damaged or not the file the manifest describes; or if it is a network whose
                weights lie outside of the bundle.
        """
        raw = b"".join(self._verified(name))
        if name in self._networks:
            self._check_weights(name, raw)
        return raw

    def check(self, name: str) -> None:
        """Check a listed member as ``read`` does, but keep none of it, unless it is a network that may name files.

        Raises:
            BundleError: As ``read`` does.
        """
        rest, named = b"", False
        for chunk in self._verified(name):
            named = named or MARK in rest + chunk
            rest = chunk[-len(MARK) :]
        if named and name in self._networks:
            self.read(name)

    def _verified(self, name: str) -> Iterator[bytes]:
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(
                f"member '{name}' is not listed in the manifest", where=str(self.path), fix="name one of $.files"
            )
        digest, size = hashlib.sha256(), 0
        for chunk in read_bounded(self._members, name, min(entry.bytes, MAX_MEMBER_BYTES), self.path):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if size != entry.bytes or digest.hexdigest() != entry.sha256:
            raise BundleError(
                f"member '{name}' differs from the manifest (sha256 {digest.hexdigest()[:12]}..., "
                f"expected {entry.sha256[:12]}...)",
                where=f"{self.path}: $.files.{name}",
                fix="copy or export the bundle again",
            )

    def _check_weights(self, name: str, raw: bytes) -> None:
        """Raise BundleError for a network that would make an engine read other files."""
        try:
            outside = names_files(raw)
        except ValueError as error:
            raise BundleError(
                f"network '{name}' is not a valid ONNX file: {error}",
                where=str(self.path),
                fix="export the bundle again",
            ) from error
        if outside:
            raise BundleError(
                f"network '{name}' refers to weight files outside the bundle",
                where=str(self.path),
                fix="do not use this file; a bundle that mmedge exports holds its weights",
            )

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


def write_archive(path: str | Path, manifest: Manifest, members: Mapping[str, bytes]) -> Path:
    """Write a bundle atomically; equal content gives equal bytes.

    Args:
        path: Where to; an existing file is replaced in one step.
        manifest: Its ``files`` must list exactly ``members``.
        members: Name -> content.

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
        for name, raw in [(MANIFEST, encoded), *sorted(members.items())]:
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, raw)
    return path
