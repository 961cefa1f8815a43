"""Native core of mmedge."""

from collections.abc import Sequence
from typing import Any

import numpy
import numpy.typing

class AttachClient:
    """
    A program's side of the line to a running pipeline; any thread may use it.

    Once it is closed its methods raise ValueError.
    """

    def __init__(self, path: str) -> None:
        """
        Attach to the pipeline that listens on ``path``; waits at most 5 s.

        Raises:
            OSError: If no pipeline is there, or it does not want this program.
            ValueError: If it is no path of a socket.
        """

    def next(self, timeout_ms: int) -> tuple[bytes, list[tuple[Any, ...]]] | None:
        """
        Wait for the next result: its line of JSON, and where the pictures lie it was made from.

        Of each picture: input, ring, slot, seq, bytes, format, matrix, width, height, capture_ns,
        uncertainty_ns, rotation, mirrored, full_range, shape of a pixel; ring 0 is nowhere. A negative
        timeout is none.

        Returns:
            None where nothing came in time.

        Raises:
            EOFError: If the run has ended.
            OSError: If it has died, or says what cannot be.
        """

    def copy(self, ring: int, slot: int, seq: int, out: numpy.typing.NDArray[numpy.uint8]) -> bool:
        """
        Copy the first len(out) bytes of a picture.

        False if they were overwritten, also meanwhile; ``out`` is undefined then.
        """

    def push(
        self, input: str, data: numpy.typing.NDArray[numpy.uint8], dtype: int, shape: Sequence[int], capture_ns: int
    ) -> tuple[int, str]:
        """
        Push the bytes [n] of an array; return a ``mmedge_status`` and why it is not 0.

        ``dtype`` is a ``mmedge_dtype``. 2: the run has ended; 5: the pipeline is behind; 6: pushed, but it
        refused one before; 7: the pipeline has no such input; 8: it has died.
        """

    def push_text(self, input: str, text: str, capture_ns: int) -> tuple[int, str]:
        """
        Push a text of up to 64 KiB; return what ``push`` does. "" takes the text back.
        """

    def close(self) -> None:
        """Leave the pipeline; idempotent."""

    @property
    def fd(self) -> int:
        """A descriptor that is readable when ``next`` may have something."""

    @property
    def dropped(self) -> int:
        """Results that were lost because they were not read in time."""

class CallbackBlocks:
    """
    Blocks of sound that PortAudio's own thread copies and stamps, without Python.

    It calls the function at ``function`` with ``data``, both addresses; one thread takes what came.
    """

    def __init__(self, blocks: int, frames: int, channels: int) -> None:
        """Room for so many blocks of up to so many frames."""

    def take(self, timeout_ms: int) -> tuple[numpy.typing.NDArray[numpy.float32], int, int, float, float, bool] | None:
        """
        Wait for the oldest block and return it; None once it was closed.

        Returns:
            Samples, float32 [channels, frames], yours; frames that were counted until its end; when it was
            delivered, in ns on CLOCK_MONOTONIC; on PortAudio's clock, in seconds, when its first frame was
            converted and when it was delivered; whether some were lost before it.

        Raises:
            TimeoutError: If nothing came.
        """

    def close(self) -> None:
        """Let who waits return at once, and later ones too."""

    @property
    def overflows(self) -> int:
        """Blocks before which PortAudio has lost some."""

    @property
    def function(self) -> int:
        """Address of the function: a PaStreamCallback."""

    @property
    def data(self) -> int:
        """Address to call it with, valid as long as this object."""

class Classifier:
    """Scores of labels: calibrated, smoothed, decided or abstained."""

    def __init__(
        self,
        labels: int,
        temperature: float | None,
        top: int,
        tau_ms: float | None,
        enter: float,
        leave: float,
        hold_ms: float | None,
    ) -> None:
        """
        Without a ``temperature`` the output is probabilities, otherwise logits.
        """

    def read(
        self, output: numpy.typing.NDArray[numpy.float32] | numpy.typing.NDArray[numpy.float64]
    ) -> tuple[float, float] | None:
        """
        Take up an output of any shape; return the range of scores that are no probabilities, else None.
        """

    def tell(self, t_ns: int) -> tuple[int, float]:
        """
        Smooth what was read; return the label's index and score, or -1 and the best score.
        """

    def top(self) -> list[tuple[int, float]]:
        """Rank what was told: the best labels and their scores."""

    def reset(self) -> None:
        """Forget the past."""

def cpu_features() -> list[str]:
    """Names of the instruction sets that this process may use."""

def round_decimals(value: float, digits: int) -> float:
    """Return what ``round`` does, to the same bits; ``digits`` is 0 to 15."""

def round_values(values: dict[str, float], digits: int) -> dict[str, float]:
    """Return a dict with every value rounded as ``round`` does."""

class Detector:
    """Boxes of a detector's output: read, take, map the corners, tell."""

    def __init__(self, layout: str, classes: int, most: int, threshold: float, iou: float) -> None: ...
    @property
    def values(self) -> int:
        """How many values a row has."""

    def read(
        self, output: numpy.typing.NDArray[numpy.float32] | numpy.typing.NDArray[numpy.float64]
    ) -> tuple[float, float] | None:
        """
        Score rows: [values, n] of ``yolo``, else [n, values]; return the range of scores that are no probabilities.
        """

    def found_scores(self) -> numpy.typing.NDArray[numpy.float64]:
        """Return the scores [k] of the rows above the threshold; a copy."""

    @property
    def found(self) -> int:
        """How many rows are above the threshold."""

    def take(
        self,
        output: numpy.typing.NDArray[numpy.float32] | numpy.typing.NDArray[numpy.float64],
        picked: numpy.typing.NDArray[numpy.int64] | None = None,
    ) -> float | None:
        """
        Take up those found in the same output, or those ``picked`` of them [k]; return a class that does not exist.
        """

    def corners(self) -> numpy.typing.NDArray[numpy.float64]:
        """
        Corners [k, 4] in pixels of the network's input, to be mapped to 0..1 of the picture in place.
        """

    def tell(self) -> list[tuple[int, float, float, float, float, float]]:
        """The boxes, best first: class, score, x1, y1, x2, y2."""

class FiniteCheck:
    """Looks for NaN and infinity in arrays that stay where they are."""

    def __init__(self, arrays: Sequence[numpy.typing.NDArray[numpy.floating]]) -> None:
        """
        Arrays [...] are float16, float32 or float64 and C-contiguous; they are kept alive.
        """

    def __call__(self) -> int:
        """Return the index of the first array that is not finite, or -1."""

class Histogram:
    """Durations in buckets 1 % wide; one thread adds while others read."""

    def __init__(self) -> None: ...
    def add(self, duration_ns: int) -> None:
        """Count one duration; below 1 us it counts as 1 us."""

    def counts(self) -> numpy.typing.NDArray[numpy.int64]:
        """Return how many durations each bucket holds, int64 [2400]; a copy."""

    def replace(self, buckets: Sequence[int], counts: Sequence[int], sum_ns: int, max_ns: int) -> None:
        """Hold these counts in these buckets, and nothing else."""

    @property
    def n(self) -> int:
        """How many durations were counted."""

    @property
    def sum_ns(self) -> int:
        """All durations together."""

    @property
    def max_ns(self) -> int:
        """The longest one."""

def image_instructions() -> list[str]:
    """
    Names of the instruction sets that image kernels can use here, best first; all give the same bits.
    """

class ImagePlan:
    """
    Where the pixels of an output come from, for one geometry of a camera.

    An axis of the picture as it is shown: (camera, block, first, count, step, shift, start, length, out).
    ``swap``: rows that are shown are stored columns; ``flip_*``: what is shown last is stored first.
    """

    def __init__(
        self,
        rows: tuple[int, int, int, int, float, float, int, int, int],
        columns: tuple[int, int, int, int, float, float, int, int, int],
        swap: bool,
        flip_rows: bool,
        flip_columns: bool,
    ) -> None: ...

class ImageKernel:
    """Camera frame -> network input, in one pass."""

    def __init__(
        self,
        frame: tuple[int, int],
        color: str,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        instructions: str = "",
    ) -> None:
        """
        ``instructions``: one of ``image_instructions``, for tests and measurements; by default the first.
        """

    def tensor(
        self,
        data: numpy.typing.NDArray[numpy.uint8],
        format: str,
        width: int,
        height: int,
        matrix: str,
        full_range: bool,
        plan: ImagePlan,
        out: numpy.typing.NDArray[numpy.float32],
    ) -> None:
        """Write the normalised float32 tensor [1, channels, height, width]."""

    def raw(
        self,
        data: numpy.typing.NDArray[numpy.uint8],
        format: str,
        width: int,
        height: int,
        matrix: str,
        full_range: bool,
        plan: ImagePlan,
        out: numpy.typing.NDArray[numpy.uint8],
    ) -> None:
        """Write the uint8 frame [1, frame height, frame width, channels]."""

def jpeg_unused(data: numpy.typing.NDArray[numpy.uint8]) -> int:
    """
    Bytes in the scans of a JPEG picture [n] that no block uses; -1: it is damaged, -2: of a kind that is not judged.
    """

def end_with(pidfd: int) -> None:
    """
    Have this process killed when the one behind ``pidfd`` ends or has ended; owns the descriptor.

    Raises:
        OSError: If no thread can be started.
    """

class LogMel:
    """Log-mel features of one window of sound."""

    def __init__(
        self,
        n_fft: int,
        window_samples: int,
        hop_samples: int,
        filters: numpy.typing.NDArray[numpy.float32],
        floor: float,
        mean: float,
        std: float,
    ) -> None:
        """``filters``: [n_fft // 2 + 1, n_mels]."""

    def compute(self, pcm: numpy.typing.NDArray[numpy.float32], out: numpy.typing.NDArray[numpy.float32]) -> None:
        """
        Write the features of [samples] to [frames, n_mels] or [1, frames, n_mels].
        """

class RecordQueue:
    """
    Records of bytes in memory shared with another process: one writer, one reader, neither waits.
    """

    def __init__(self, capacity: int) -> None: ...
    @staticmethod
    def attach(fd: int) -> RecordQueue:
        """
        Map the queue of another process to take from it; the caller keeps ``fd``.
        """

    def put(self, record: bytes, arrive_ns: int, capture_ns: int, epoch: int) -> bool:
        """
        Append a record, and say what it is about; False when there is no room for it.
        """

    def take_all(self) -> list[bytes]:
        """
        Take the records that are there, oldest first.

        Raises ValueError when the writer left something that cannot be.
        """

    @property
    def newest(self) -> tuple[int, int, int]:
        """
        Arrival and capture time in ns, and epoch, of the newest record, taken or not; zeros before it.
        """

    @property
    def capacity(self) -> int:
        """How many bytes it holds, with four for each record."""

    @property
    def fd(self) -> int:
        """Descriptor of the shared memory, for ``attach`` in another process."""

class Regressor:
    """One number: clamped, averaged over time, told to six digits."""

    def __init__(self, tau_ms: float | None, clamp: tuple[float, float] | None) -> None: ...
    def read(self, value: float) -> None:
        """Take up the number."""

    def tell(self, t_ns: int) -> float:
        """Return what was read, averaged."""

    def reset(self) -> None:
        """Forget the past."""

class SampleRing:
    """
    The newest `capacity` mono float32 samples by absolute index, which starts at 0.

    One thread may write while another reads, also in another process; neither waits.
    """

    def __init__(self, capacity: int) -> None: ...
    @staticmethod
    def shared(capacity: int) -> SampleRing:
        """A ring in memory that another process may attach to by its ``fd``."""

    @staticmethod
    def attach(fd: int) -> SampleRing:
        """Map the shared ring of another process; the caller keeps ``fd``."""

    def write(self, samples: numpy.typing.NDArray[numpy.float32]) -> int:
        """Append samples and return the new end."""

    def write_silence(self, n: int) -> int:
        """
        Append n samples of which nothing is known (a gap) and return the new end.
        """

    def read(self, end: int, out: numpy.typing.NDArray[numpy.float32]) -> int:
        """
        Copy samples [end - len(out), end) and return how many are real.

        What was overwritten, is not yet written or is silence reads as zero.
        """

    @property
    def begin(self) -> int:
        """Index of the oldest sample that is kept."""

    @property
    def end(self) -> int:
        """Index after the newest sample."""

    @property
    def capacity(self) -> int:
        """How many samples are kept."""

    @property
    def fd(self) -> int:
        """Descriptor of the shared memory; -1 if the ring is private."""

def softmax(scores: numpy.typing.NDArray[numpy.float64], temperature: float) -> None:
    """
    Turn logits [n] into probabilities, divided by ``temperature`` first, in place.
    """

class SlidingLogMel:
    """
    Log-mel features of a window that slides over sound: what two windows share is computed once.
    """

    def __init__(
        self,
        n_fft: int,
        window_samples: int,
        hop_samples: int,
        filters: numpy.typing.NDArray[numpy.float32],
        floor: float,
        mean: float,
        std: float,
        samples: int,
    ) -> None:
        """``filters``: [n_fft // 2 + 1, n_mels]; ``samples``: of a window."""

    def wanted(self, end: int) -> int:
        """
        How many of its last samples the window that ends before index ``end`` is computed from.
        """

    def compute(
        self, tail: numpy.typing.NDArray[numpy.float32], end: int, out: numpy.typing.NDArray[numpy.float32]
    ) -> bool:
        """
        Write [1, frames, n_mels] from the ``wanted`` samples; False if the whole window is wanted after all.
        """

    def forget(self) -> None:
        """Forget the sound that was heard: what comes is other sound."""

class SlotRing:
    """
    Byte slots in memory shared with another process; each slot has one owner.

    A writer acquires a slot, fills its data and publishes it with a header; a reader takes it
    and releases it; neither waits. Release a slot once: then it may be another's.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None: ...
    @staticmethod
    def attach(fd: int) -> SlotRing:
        """Map the ring of another process; the caller keeps ``fd``."""

    def acquire(self, steal: bool = False) -> int:
        """
        Own the free slot of oldest data to write it, and return its index; -1 if there is none.

        With ``steal``, if none is free, it is the oldest slot that nobody has taken, which is dropped.
        """

    def data(self, index: int) -> numpy.typing.NDArray[numpy.uint8]:
        """
        A slot's bytes: a writable view, yours while you own the slot; it keeps the memory mapped.
        """

    def publish(self, index: int, header: bytes) -> int:
        """
        Give an acquired slot to the reader, with up to 1024 bytes of header; return its sequence number.
        """

    def hold(self, index: int) -> int:
        """
        Keep an acquired slot that is written, and return the sequence number by which others may copy it.

        0 if it was given back; one that was taken or held keeps its number.
        """

    def take(self) -> tuple[int, int, bytes] | None:
        """
        Own the slot that was published first: its index, sequence number and header.
        """

    def claim(self, index: int, seq: int) -> bool:
        """
        Own a published slot by what it holds; False if somebody has it, or it holds something else.
        """

    def release(self, index: int) -> None:
        """
        Give back a slot that was taken or acquired; nothing happens to one that is free or not taken.
        """

    def copy(self, index: int, seq: int, out: numpy.typing.NDArray[numpy.uint8]) -> bool:
        """
        Copy the first len(out) bytes of a slot, whoever owns it, if they are those of ``seq``.

        False if they were overwritten, also meanwhile; ``out`` is undefined then.
        """

    @property
    def fd(self) -> int:
        """Descriptor of the shared memory, for ``attach`` in another process."""

    @property
    def slots(self) -> int:
        """How many slots there are."""

    @property
    def slot_bytes(self) -> int:
        """Size of each slot's data."""

    @property
    def dropped(self) -> int:
        """Published slots that were overwritten before anybody took them."""

    @property
    def free(self) -> int:
        """Slots that are free now."""

    @property
    def ready(self) -> int:
        """Slots that are published and not taken now."""

class StreamClock:
    """
    Places a stream's own time (presentation time, sample count) on CLOCK_MONOTONIC.

    A packet can arrive late, never early, so a line with a slope follows the lower envelope of
    ``arrival - stream time`` and not its mean: stalls of the reader do not move it. Times are ns; those
    beyond 64 bits count as the largest.
    """

    def __init__(self, *, floor_ns: int) -> None:
        """
        ``floor_ns``: the smallest uncertainty to claim, for what the envelope cannot see (constant delays).
        """

    def observe(self, stream_ns: int, arrive_ns: int, *, gap: bool = False) -> int:
        """
        Learn that stream time ``stream_ns`` arrived at ``arrive_ns``.

        ``gap``: the stream says that something is missing before this, but not how much. Returns 0, or the
        jump of the mapping in ns: positive after a gap of the stream, negative when everything before was
        stamped too late; beyond 10 s the stream's own time has jumped.
        """

    def restart(self) -> None:
        """
        Forget the offset, keep the slope: the stream's time begins anew with the next observation.
        """

    def shift(self, gap_ns: int) -> None:
        """
        Take in that ``gap_ns`` of the stream are missing before the next observation.
        """

    def to_monotonic(self, stream_ns: int) -> int:
        """
        Return the time of ``stream_ns`` on CLOCK_MONOTONIC.

        While the stream advances it never runs back, except by a jump that ``observe`` returned.
        """

    @property
    def offset_ns(self) -> int:
        """CLOCK_MONOTONIC less the stream's own time, at the latest bucket."""

    @property
    def ppm(self) -> float:
        """
        How much slower than CLOCK_MONOTONIC the stream's clock runs, in parts per million.
        """

    @property
    def jitter_ns(self) -> int:
        """
        99 % of the latest packets arrived within this of the earliest possible time.
        """

    @property
    def uncertainty_ns(self) -> int:
        """
        Bound on the error of the mapping, in ns.

        The floor, and the largest of: 1.5 times the spread of the minima (their middle half) with how
        far the newest of them is off the line; how far even the earliest packet of the last quarter of
        a second is above it; how much more than the earliest half of the packets needed (at most
        1 ms), as fine noise may be two-sided. While few packets were seen, also how late all of them
        may have been.
        """

class Synchronizer:
    """
    Packets in, cuts out, on capture time alone; it reads no clock. Times are ns.

    Inputs are numbered in the order in which they are added. A payload stays with the caller, under the slot that
    ``push_frame`` or ``push_value`` returned (-1: it is not kept), until ``drain`` names that slot.
    """

    def __init__(
        self, *, started_ns: int, wait_ns: int, hold_ns: int, every_ns: int, timer: bool, latest: bool, lossless: bool
    ) -> None: ...
    def add_image(self, *, live: bool, policy: str, max_age_ns: int | None, trigger: bool) -> int:
        """Add an image input; return its number."""

    def add_audio(
        self,
        *,
        live: bool,
        policy: str,
        max_age_ns: int | None,
        trigger: bool,
        rate_hz: int,
        window: int,
        ahead_ns: int,
        reserve_ns: int,
    ) -> int:
        """
        Add an audio input, whose window of samples ends ``ahead_ns`` after the trigger; return its number.
        """

    def add_value(
        self,
        *,
        live: bool,
        policy: str,
        max_age_ns: int | None,
        trigger: bool,
        ttl_ns: int | None,
        period_ns: int | None,
        paced: bool,
    ) -> int:
        """Add an input of texts or arrays; return its number."""

    def push_frame(
        self,
        input: int,
        epoch: int,
        capture_ns: int,
        arrive_ns: int,
        uncertainty_ns: int,
        unchanged_ns: int,
        damaged: bool,
    ) -> int:
        """Take a frame; return the slot of its payload."""

    def push_value(
        self, input: int, epoch: int, capture_ns: int, arrive_ns: int, uncertainty_ns: int, blank: bool
    ) -> int:
        """Take a text or an array; return the slot of its payload."""

    def push_block(
        self,
        input: int,
        epoch: int,
        capture_ns: int,
        arrive_ns: int,
        uncertainty_ns: int,
        samples: numpy.typing.NDArray[numpy.float32],
        lost: int,
    ) -> None:
        """Take a block [n], before which ``lost`` samples are missing."""

    def push_arrival(self, input: int, epoch: int, capture_ns: int, arrive_ns: int, uncertainty_ns: int) -> None:
        """Take the times of a packet that made room for a newer one."""

    def push_end(
        self, input: int, epoch: int, capture_ns: int, arrive_ns: int, uncertainty_ns: int, with_reason: bool
    ) -> bool:
        """
        Note that the source has nothing more to say; False: it is an old one's end.
        """

    def advance(self, now_ns: int) -> None:
        """Tell the time."""

    def next_deadline_ns(self) -> int | None:
        """Return when ``poll`` must be called even if nothing arrives, or None."""

    def poll(
        self,
    ) -> list[
        tuple[int, int, int, int, bool, int, int, int, list[tuple[str, int] | tuple[int, int, int, int, int, int]]]
    ]:
        """
        Return what is ready: t_ns, seq, deliver_ns, wait_ns, whether a frame made it, uncertainty_ns of the
        trigger and of the other inputs, skew_ns, and of each input why it is absent and by how many ns, or slot,
        epoch, age_ns, and of sound the index after the last sample, of the epoch's first, of the oldest kept.
        """

    def trim(self) -> None:
        """Let go of what neither a trigger nor what was polled so far can want."""

    def close(self) -> None:
        """Let go of everything."""

    def drain(self) -> list[int]:
        """
        Return the slots of which nobody wants the payload any more, each once; then they are used again.
        """

    def starting(self, input: int, t_ns: int) -> bool:
        """Whether nothing can be there at ``t_ns`` yet."""

    def silence_ns(self, input: int, now_ns: int) -> int | None:
        """
        For how long an input has given nothing, None while it is alive or if it keeps no rate.
        """

    def steady_ns(self, input: int, now_ns: int) -> int | None:
        """
        The period of an input that is live, keeps a rate and was alive at ``now_ns``, or None.
        """

    def ahead_ns(self, capture_ns: int, others: Sequence[int]) -> int:
        """How far ``capture_ns`` is ahead of the slowest of ``others``."""

    def ring(self, input: int) -> SampleRing:
        """The samples of an audio input."""

    def end_ns(self, input: int, end: int) -> int:
        """When the instant before sample ``end`` was sensed."""

    def lost(self, input: int) -> int:
        """The lost samples of an audio input."""

    @property
    def triggers(self) -> int:
        """How many triggers were made."""

    @property
    def period_ns(self) -> int:
        """From one trigger to the next, as measured."""

    @property
    def pending(self) -> int:
        """How many triggers wait."""

    @property
    def finished(self) -> bool:
        """Whether no trigger waits and none can come."""

    @property
    def drops(self) -> list[tuple[int, str, int]]:
        """
        Triggers that became nothing: the input that let them skip or -1, cause, count, as they first occurred.
        """

    @property
    def refused(self) -> list[tuple[int, str, int]]:
        """
        Other packets that were not taken: input, cause, count, in the order in which they first occurred.
        """

class Smoother:
    """
    The smoothing of one task: of its scores, of the choice of a label, of the label.
    """

    def __init__(self, size: int, tau_ms: float | None, enter: float, leave: float, hold_ms: float | None) -> None: ...
    def choose(self, scores: numpy.typing.NDArray[numpy.float64], t_ns: int) -> int | None:
        """
        Smooth the scores [n] of ``t_ns`` in place; return the index of the label they choose, or None.
        """

    def tell(self, label: int | None, t_ns: int) -> int | None:
        """Return the label to report at ``t_ns``, after the one that was chosen."""

    def reset(self) -> None:
        """Forget the past, at a new epoch or after an undefined score."""

def suppress(
    corners: numpy.typing.NDArray[numpy.float64],
    scores: numpy.typing.NDArray[numpy.float32],
    iou: float,
    classes: numpy.typing.NDArray[numpy.int32] | None = None,
) -> list[int]:
    """
    Return the boxes [n, 4] that overlap no better one (of the same class) by more than ``iou``, best first.
    """

class TriggerTimes:
    """Counts the times of one trigger after the other."""

    def __init__(
        self,
        origin: str,
        end_to_end: Histogram,
        overhead: Histogram,
        deliver: Histogram,
        ready: Histogram,
        preprocessed: Histogram,
        inferred: Histogram,
        interpreted: Histogram,
        stamps: Histogram,
        skew: Histogram,
        uncertainty: Histogram,
    ) -> None:
        """
        ``origin``: latency counts from the ``capture``, the ``delivery``, or the start of the ``call``.
        """

    def add(
        self,
        capture_ns: int,
        delivered_ns: int,
        start_ns: int,
        inferred_ns: int,
        end_ns: int,
        waited_ns: int,
        preprocessing_ns: int,
        engines_ns: int,
        stamp_uncertainty_ns: int,
        skew_ms: float,
        uncertainty_ms: float,
    ) -> tuple[int, dict[str, float]]:
        """
        Count the times of one trigger; return from when its latency counts, and its steps in ms, to 1 us.
        """

class Verifier:
    """One score: do the inputs agree?"""

    def __init__(
        self, temperature: float | None, tau_ms: float | None, enter: float, leave: float, hold_ms: float | None
    ) -> None:
        """
        Without a ``temperature`` the output is a probability, otherwise a logit.
        """

    def read(self, score: float) -> tuple[float, float] | None:
        """
        Take up the score; return the range of one that is no probability, else None.
        """

    def tell(self, t_ns: int) -> tuple[int, float]:
        """
        Smooth what was read; return 1 for yes, 0 for no, -1 to abstain, and the probability of yes.
        """

    def reset(self) -> None:
        """Forget the past."""
