"""A loaded bundle: its manifest, and members that were checked against it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np

from mmedge.bundle.archive import Archive
from mmedge.bundle.container import DAMAGE
from mmedge.bundle.manifest import Input, Manifest, Task, Variant
from mmedge.bundle.onnx_file import weights_member
from mmedge.bundle.references import check_label_count
from mmedge.errors import BundleError
from mmedge.plain import unsafe
from mmedge.types import AnyArray

MAX_GOLDEN_BYTES = 1 << 28  # unpacked
MAX_LABELS_BYTES = 1 << 22


class Bundle:
    """The deployable artefact, open for reading.

    Every member is verified against its SHA-256 when it is read; ``load`` reads all of them once.

    Attributes:
        path: The file or folder.
        manifest: The decoded manifest.
        manifest_sha256: Hash of its bytes, which hold the hashes of all members: that of the whole content.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.path = archive.path
        self.manifest: Manifest = archive.manifest
        self.manifest_sha256 = archive.manifest_sha256

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.manifest.name

    @property
    def inputs(self) -> dict[str, Input]:
        """Seats of the model, in the order of ``@present``."""
        return self.manifest.inputs

    @property
    def tasks(self) -> dict[str, Task]:
        """What the outputs mean."""
        return self.manifest.tasks

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs that results tell as they are, ``STAGE.OUTPUT``."""
        return self.manifest.outputs

    def read(self, member: str) -> bytes:
        """Return a member's bytes, verified."""
        return self._archive.read(member)

    def weights(self, member: str, network: bytes) -> dict[str, AnyArray]:
        """Return the weights of a network that lie in a member of their own, verified and mapped: name -> values.

        Arrays are read-only, [as the network says] in its dtypes.

        Args:
            member: The network.
            network: Its bytes, as ``read`` returned them.
        """
        return self._archive.weights(member, network)

    def network_bytes(self, member: str) -> int:
        """Return how many bytes a network has, with the weights that lie in a member of their own."""
        own = self.manifest.files.get(weights_member(member))
        return self.manifest.files[member].bytes + (own.bytes if own is not None else 0)

    def labels(self, task: str) -> tuple[str, ...]:
        """Return the labels of a task, one a line in its file; none where its kind has none."""
        member = self.tasks[task].labels
        if member is None:
            return ()
        entry = self.manifest.files.get(member)
        if entry is not None and entry.bytes > MAX_LABELS_BYTES:
            raise BundleError(
                f"labels of {entry.bytes} bytes, the limit is {MAX_LABELS_BYTES}",
                where=f"{self.path}: {member}",
                fix="do not use this bundle",
            )
        try:
            text = self.read(member).decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise BundleError(
                f"labels are not UTF-8: {error}", where=f"{self.path}: {member}", fix="export the bundle again"
            ) from error
        labels = tuple(text.removesuffix("\n").split("\n"))
        for number, label in enumerate(labels, 1):
            if (found := unsafe(label)) is not None:
                raise BundleError(
                    f"label {number} has the character {found}, which could steer a terminal or hide",
                    where=f"{self.path}: {member}",
                    fix="correct the labels; of a stranger's bundle, do not use it",
                )
        if not labels or not all(labels) or len(set(labels)) != len(labels):
            raise BundleError(
                "labels must be distinct and not empty", where=f"{self.path}: {member}", fix="correct the labels"
            )
        return labels

    def golden(self, member: str) -> dict[str, AnyArray]:
        """Return the arrays of a golden file (``in.NAME`` and ``out.NAME``, samples along axis 0).

        Arrays are [samples, ...] in the dtypes of the network's inputs and outputs.
        """
        raw = self.read(member)
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                size = sum(info.file_size for info in archive.infolist())
            if size > MAX_GOLDEN_BYTES:
                raise ValueError(f"{size} bytes unpacked, the limit is {MAX_GOLDEN_BYTES}")
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            for name, array in found.items():
                if array.dtype.kind not in "fiub":
                    raise ValueError(f"'{name}' is {array.dtype}, not numbers")
        except (*DAMAGE, TypeError, KeyError, OverflowError, MemoryError) as error:
            raise BundleError(
                f"golden file is not a plain npz: {error}",
                where=f"{self.path}: {member}",
                fix="export the bundle again",
            ) from error
        return found

    def variants(self, stage: str, target: str) -> list[Variant]:
        """Return the variants of a stage for one target, in the manifest's order."""
        return [v for v in self.manifest.variants if v.stage == stage and v.target == target]

    def verify(self) -> None:
        """Read every member once.

        Raises:
            BundleError: At the first member that is missing, damaged or different, or labels that are not as many
                as the output has classes.
        """
        for member in self.manifest.files:
            self._archive.check(member)
        for task in self.tasks:
            check_label_count(self.manifest, task, len(self.labels(task)))

    def close(self) -> None:
        """Close the file; idempotent."""
        self._archive.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, inputs={list(self.inputs)}, tasks={list(self.tasks)})"


def load(path: str | Path) -> Bundle:
    """Open and verify a bundle.

    Args:
        path: The ``.mmedge`` file, or a folder with the same members.

    Returns:
        The bundle; the caller closes it.

    Raises:
        BundleError: If it is missing, damaged, hostile or needs a newer mmedge.

    Example:
        >>> import mmedge
        >>> mmedge.load("digits.mmedge").tasks  # doctest: +SKIP
        {'digit': Task(...), 'agreement': Task(...)}
    """
    bundle = Bundle(Archive(path))
    try:
        bundle.verify()
    except BaseException:
        bundle.close()
        raise
    return bundle
