"""Native core of mmedge."""

from collections.abc import Callable, Sequence
import enum
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

class TaskReader:
    """Reads the output of one task, and tells what it says."""

    def read(self, output: Any, snapshot: object) -> None:
        """
        Take up an output of any shape; what it took up before, and did not tell, is forgotten.
        """

    def told(self, snapshot: object) -> bytes:
        """
        Return what was read, smoothed, as a ``TaskResult`` in MessagePack; once, for the smoothing moves on.
        """

    def reset(self) -> None:
        """Forget the past."""

class Classifier(TaskReader):
    """Scores of labels: calibrated, smoothed, decided or abstained."""

    def __init__(
        self,
        temperature: float | None,
        top: int,
        tau_ms: float | None,
        enter: float,
        leave: float,
        hold_ms: float | None,
        *,
        labels: Sequence[str],
        convert: Callable[[Any], Any],
        refuse: Callable[[float, float], object],
    ) -> None:
        """
        Without a ``temperature`` the output is probabilities, otherwise logits; it has one score a label.

        ``convert`` makes float64 values of an output of another type, and raises for another number of them;
        ``refuse`` raises for the range of scores that are no probabilities.
        """

def cpu_features() -> list[str]:
    """Names of the instruction sets that this process may use."""

def cuda_problem() -> str | None:
    """Say why no GPU can be used; None when one can. Loads the driver."""

class CudaFacts:
    """What a GPU is."""

    @property
    def name(self) -> str:
        """As the driver calls it."""

    @property
    def major(self) -> int:
        """Of the compute capability."""

    @property
    def minor(self) -> int:
        """Of the compute capability."""

    @property
    def memory_bytes(self) -> int:
        """That it can use."""

    @property
    def integrated(self) -> bool:
        """Whether CPU and GPU share one memory."""

    @property
    def cuda_version(self) -> int:
        """Newest that the driver supports: 12060 is 12.6."""

def cuda_facts(ordinal: int = 0) -> CudaFacts:
    """
    Say what a GPU is, without a context; raises EngineError where there is none.
    """

class CudaDevice:
    """The first GPU and its primary context, which TensorRT uses, too."""

    def __init__(self) -> None:
        """Raises EngineError where it cannot be used."""

    @property
    def free_bytes(self) -> int:
        """Memory that is free now."""

class CudaMemory:
    """Zeros on the GPU, freed with the object."""

    def __init__(self, device: CudaDevice, bytes: int) -> None: ...
    def write(self, array: numpy.typing.NDArray[Any]) -> None:
        """
        Copy a C-contiguous array [...] of any dtype to its begin, and return when it is there.
        """

    @property
    def address(self) -> int:
        """Where it lies for the GPU."""

class CudaBuffer:
    """
    One tensor's memory on both sides: pinned on the host, and where the GPU works on it.
    """

    def __init__(self, device: CudaDevice, bytes: int, *, mapped: bool) -> None:
        """
        ``mapped``: both sides are one memory, as integrated GPUs like it. All of it is zeros.
        """

    def host(self) -> numpy.typing.NDArray[numpy.uint8]:
        """Its bytes, uint8 [bytes]; the memory lives as long as a view of it."""

    @property
    def address(self) -> int:
        """Where it lies for the GPU."""

    def upload(self, run: CudaRun) -> None:
        """Put the copy to the GPU into the run's stream."""

    def download(self, run: CudaRun) -> None:
        """Put the copy to the host into the run's stream."""

    def close(self) -> None:
        """Free the GPU's side; the host's follows its last view."""

class SmShare:
    """
    A part of the GPU's SMs that is reserved, and the rest: two green contexts.
    """

    def __init__(self, device: CudaDevice, wanted: int) -> None:
        """
        ``wanted``: SMs to reserve; the driver rounds up. Raises EngineError where it cannot.
        """

    @property
    def reserved(self) -> int:
        """SMs of the reserved part."""

    @property
    def rest(self) -> int:
        """SMs of the rest."""

class NativeRun:
    """An engine's run that C++ calls by itself, without Python's lock."""

    def run(self) -> None:
        """Compute the outputs from the inputs; raises EngineError."""

class CudaRun(NativeRun):
    """
    What an engine does at each run, recorded once as a CUDA graph and launched by one call.
    """

    def __init__(self, device: CudaDevice, name: str, share: SmShare | None = None, reserved: bool = True) -> None:
        """
        ``name``: whose run it is, for messages. With a ``share``, it runs on its reserved SMs or on the rest.
        """

    @property
    def stream(self) -> int:
        """Its ``CUstream``, as a number."""

    @property
    def captured(self) -> bool:
        """Whether there is a graph to launch."""

    def capture(self, enqueue: Callable[[], None]) -> None:
        """
        Record what ``enqueue`` puts into the stream instead of doing it; what it raises ends the recording.
        """

    def wait(self) -> None:
        """Return when the stream has done all that was put into it."""

    def drop(self) -> None:
        """Wait, and give the graph back: before what it launches goes."""

    def close(self) -> None:
        """Give all back; idempotent."""

class CudaKernels:
    """Our own kernels on the GPU, where mmedge was built with nvcc."""

    def __init__(self, device: CudaDevice) -> None:
        """
        Raises EngineError where mmedge was built without them, or not for this GPU.
        """

    @staticmethod
    def built() -> bool:
        """Whether mmedge was built with them."""

    def picture(self, run: CudaRun, picture: bytes, source: int, rows: int, columns: int, out: int) -> None:
        """
        Put into the run's stream: a camera's picture -> float32 [channels, height, width].

        ``picture``, and what lies at ``rows`` and ``columns``, are those of ``ImageKernel.gpu_table``.
        """

    def dense(
        self, run: CudaRun, source: int, weights: int, bias: int, inputs: int, outputs: int, relu: bool, out: int
    ) -> None:
        """
        Put into the run's stream: out [outputs] = weights [outputs, inputs] source + bias, all float32.
        """

class Programme:
    """Which tracks a transport stream says that it has."""

    def __init__(self) -> None: ...
    def changed(self, data: bytes) -> bool:
        """Take whole packets; tell whether a table differs from what it was."""

class Datagrams:
    """UDP as a stream of bytes, received by a thread without Python."""

    def __init__(self, fd: int) -> None:
        """From this socket; the caller keeps ``fd``."""

    def begin(self) -> None:
        """Read what comes next as a stream of its own."""

    def read(self, size: int, timeout_ms: int) -> bytes | None:
        """
        Wait for bytes and return those that are there, at most ``size``; none of them (b"") when they belong
        to another programme, None when nothing came in time or it was ended.
        """

    def end(self) -> None:
        """Give the port back and wake who reads; idempotent."""

    @property
    def lost(self) -> int:
        """Datagrams that found no room."""

def round_decimals(value: float, digits: int) -> float:
    """Return what ``round`` does, to the same bits; ``digits`` is 0 to 15."""

def round_values(values: dict[str, float], digits: int) -> dict[str, float]:
    """Return a dict with every value rounded as ``round`` does."""

MAX_CANDIDATES: int = 2048

class Detector(TaskReader):
    """
    Boxes above the threshold, the best first; those of one class that overlap are one.
    """

    def __init__(
        self,
        layout: str,
        most: int,
        threshold: float,
        iou: float,
        *,
        labels: Sequence[str],
        seat: str,
        rows: Callable[[Any], Any],
        few: Callable[[numpy.typing.NDArray[numpy.float64]], Sequence[int]],
        unknown: Callable[[float], object],
        to_picture: Callable[[numpy.typing.NDArray[numpy.float64]], object],
        refuse: Callable[[float, float], object],
    ) -> None:
        """
        Without the picture of ``seat`` there are none. Outputs are [values, n] of ``yolo``, else [n, values].

        ``rows`` makes float32 or float64 of an output of another type, and raises for another shape; ``few``
        chooses, by their scores [n], MAX_CANDIDATES rows where there are more; ``unknown`` raises for the class
        of a row that has none; ``to_picture`` maps corners [n, 4] in place, from pixels of the network's input
        to 0..1 of the picture; ``refuse`` is that of ``Classifier``.
        """

def fingerprint(bytes: numpy.typing.NDArray[numpy.uint8]) -> int:
    """
    Return 64 bits that are equal for equal bytes of any shape, and for others hardly ever; no secret.
    """

class FiniteCheck:
    """Looks for NaN and infinity in arrays that stay where they are."""

    def __init__(self, arrays: Sequence[numpy.typing.NDArray[numpy.floating]]) -> None:
        """
        Arrays [...] are float16, float32 or float64 and C-contiguous; they are kept alive.
        """

    def __call__(self) -> int:
        """Return the index of the first array that is not finite, or -1."""

class Moment:
    """
    What a trigger brings: which seats are present, what of them is new, how old it is.
    """

    def __init__(self, seats: int) -> None: ...
    def look(self, snapshot: object, read_audio: object, note: object | None) -> int:
        """
        Take in a trigger; return the seats that are present, bit by bit.

        It keeps all three; ``note`` is called with the name of each stage that was fed, and the snapshot.
        """

    def raise_ages(self, snapshot: object) -> None:
        """Raise the ages of a snapshot to those of the outputs that were used."""

class Life(enum.Enum):
    """What a stage's outputs are: see native/graph/life.hpp."""

    COLD = 0

    WARM = 1

    HIDDEN = 2

    RENEWING = 3

    STALE = 4

    FAILED = 5

class Stage:
    """What a stage knows from one trigger to the next."""

    def __init__(
        self,
        *,
        depends: int,
        direct: int,
        masks: int,
        watches: Sequence[int],
        follows: bool,
        every_ns: int | None,
        differs: bool,
        stream: bool,
        background: bool,
        seats: int,
        producers: Sequence[Stage],
    ) -> None:
        """Seats are bits and numbers; ``producers`` are the stages that feed it."""

    HEAVY_NS: int = 1000000

    def hears(self, bits: int) -> int:
        """
        Return which of the present seats are present to it: not what a stream before it has not heard yet.
        """

    def unheard(self) -> int:
        """
        Return the seats that feed it and of which it hears nothing yet, though they may be present.
        """

    def ran_within(self, from_ns: int, until_ns: int) -> None:
        """
        Note when the engine itself began and ended, where a run is handed to a thread of its own.
        """

    @property
    def running(self) -> bool:
        """Whether a background run was not taken up yet."""

    @property
    def faulty(self) -> bool:
        """
        Whether it has failed in the background, and no run has ended well since.
        """

    @property
    def t_ns(self) -> int:
        """Capture time that its outputs belong to."""

    @property
    def cost_ns(self) -> int:
        """Moving median of the time of a run."""

    @cost_ns.setter
    def cost_ns(self, arg: int, /) -> None: ...
    @property
    def took_ns(self) -> int:
        """The time of the newest run."""

    @property
    def shown(self) -> bool:
        """Whether its outputs are those of a run."""

    @property
    def blank(self) -> bool:
        """Whether nothing was written into its inputs since they were wiped."""

    @blank.setter
    def blank(self, arg: bool, /) -> None: ...
    @property
    def life(self) -> Life:
        """What its outputs are."""

    @life.setter
    def life(self, arg: Life, /) -> None: ...

class Spans:
    """Which stages have run since it was last asked, and when."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Their places in what is told are those in ``stages``."""

    def take(self) -> bytes:
        """
        Return five int64 of each stage that has run: its place, from when to when it was fed, and ran.
        """

class Runner:
    """Feeds and runs one stage; ``serve`` comes before everything else."""

    def __init__(self, stage: Stage) -> None: ...
    def serve(self, work: Any) -> None:
        """
        Take an engine, or another one between two runs: ``work`` is of ``mmedge.fusion.work``.
        """

    def feed(self, moment: Moment, bits: int) -> int:
        """Write every input; return how long that took, in ns."""

    def execute(self) -> None:
        """Run the engine on what was fed; any thread may do it."""

    def finish(self) -> None:
        """Its outputs are those of the run from now on."""

    def take_up(self, failed: bool) -> None:
        """Take up a background run that has ended."""

    def reset(self) -> None:
        """Forget outputs and states; those of a background run are thrown away."""

    def fail(self) -> None:
        """Forget everything after a failure."""

    def discard(self) -> None:
        """Forget a run that failed beside another: it is tried again."""

class StreamRunner(Runner):
    """Feeds and runs a stage that hears every step of a sound."""

    def __init__(self, stage: Stage, *, seat: int, step: int, window: int, rate_hz: int) -> None: ...
    def join(self) -> None:
        """Begin with the newest step: it came into a run that goes on."""

    @property
    def overruns(self) -> int:
        """How often sound was overwritten before it was heard."""

class Graph:
    """
    The stages of a bundle: at each trigger those that are due run, in order.
    """

    def __init__(
        self, runners: Sequence[Runner], ancestors: Sequence[Sequence[int]], peers: Sequence[Sequence[int]], cores: int
    ) -> None:
        """
        In topological order; ``ancestors`` feed each, ``peers`` may run beside it: places of stages.
        """

    def begin(self, moment: Moment, again: bool, hands: object) -> None:
        """
        Begin a trigger, or go on with one ``again`` without the seats of a stage that failed.

        What has come from the background is taken up; ``hands`` are of ``mmedge.fusion.hands``.
        """

    def run(self, moment: Moment, hands: object) -> None:
        """
        Run what is due and what the trigger waits for, and raise the moment's ages.

        Raises whatever the stage ``at`` raises; called again it goes on behind that stage.
        """

    def run_late(self, moment: Moment, hands: object) -> None:
        """
        Start what is due in the background; raises whatever the stage ``at`` raises.
        """

    def pending(self, place: int) -> bool:
        """Whether a stage has no output, and runs in the background for one."""

    def used(self, place: int) -> bool:
        """Whether outputs of a stage are used at this trigger."""

    @property
    def any_pending(self) -> bool:
        """Whether some stage is ``pending``."""

    @property
    def at(self) -> int:
        """The stage that was run last, or raised."""

    @property
    def feeding_ns(self) -> int:
        """What filling tensors took since ``begin``."""

    @property
    def running_ns(self) -> int:
        """What engines took since ``begin``."""

class Histogram:
    """Durations in buckets 1 % wide; one thread adds while others read."""

    def __init__(self) -> None: ...
    def add(self, duration_ns: int) -> None:
        """Count one duration; below 1 us it counts as 1 us."""

    def counts(self) -> numpy.typing.NDArray[numpy.int64]:
        """Return how many durations each bucket holds, int64 [2400]; a copy."""

    def replace(self, buckets: Sequence[int], counts: Sequence[int], sum_ns: int, max_ns: int) -> None:
        """Hold these counts in these buckets, and nothing else."""

    def pack(self) -> bytes:
        """Return what the buckets hold, for another process of this machine."""

    def unpack(self, packed: bytes, sum_ns: int, max_ns: int) -> None:
        """Hold what another one has packed, and nothing else."""

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

    An axis of the picture as it is shown:
    (camera, block, first, count, step, shift, start, length, out, cell, cell_first).
    ``swap``: rows that are shown are stored columns; ``flip_*``: what is shown last is stored first.
    """

    def __init__(
        self,
        rows: tuple[int, int, int, int, float, float, int, int, int, float, float],
        columns: tuple[int, int, int, int, float, float, int, int, int, float, float],
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

    def gpu_table(
        self,
        data: numpy.typing.NDArray[numpy.uint8],
        format: str,
        width: int,
        height: int,
        matrix: str,
        full_range: bool,
        plan: ImagePlan,
    ) -> tuple[bytes, bytes, bytes]:
        """
        Return what ``CudaKernels.picture`` needs to write the same tensor: itself, rows and columns.
        """

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

def put_message(ring: SlotRing, fd: int, message: bytes, steal: bool) -> bool:
    """
    Publish a message and set the eventfd of its reader; False if no slot is free.

    With ``steal``, the oldest that nobody has taken is overwritten instead. Never blocks.
    """

def next_message(ring: SlotRing, fd: int, timeout_s: float | None, newest: bool) -> tuple[bytes, int] | None:
    """
    Return the next message, or the ``newest``, and how many were passed over for it.

    Waits until the eventfd is set, once, if none is there; None if then none has come. While it waits,
    Python's threads take turns every 50 us, unless the program has set an interval itself.
    """

class MicrophoneClock:
    """
    Places a microphone's count of samples on CLOCK_MONOTONIC by the best time there is.

    Classes of time are numbered from the best: 0 the converter's, 1 PortAudio's of the callback, 2 the entry of
    our callback. For two seconds the last is used and all are probed; then the best is used and watched.
    """

    def __init__(self, rate_hz: int, a_ns: int, b_ns: int, c_ns: int) -> None:
        """
        Of a device of so many samples per second, with the least uncertainty to claim for each class.
        """

    def observe(
        self, samples: int, entry_ns: int, adc_ns: int, current_ns: int, overflow: bool
    ) -> tuple[int, bool, int]:
        """
        Learn from the next block: the samples counted up to its end, its times in ns, and whether the device
        says that some are missing before it.

        Returns how much is missing before the block, in ns; whether a new epoch must begin; 1 if a class was
        chosen after the probe, 2 if one was left, else 0.
        """

    def stream_ns(self, samples: int) -> int:
        """Return the microphone's own time of a count of samples."""

    def to_monotonic(self, stream_ns: int) -> int:
        """Return the time of ``stream_ns`` on CLOCK_MONOTONIC."""

    @property
    def quality(self) -> int:
        """The class in use."""

    @property
    def uncertainty_ns(self) -> int:
        """Bound on the error of the mapping, in ns."""

    @property
    def report(self) -> tuple[int, int, float, int, int]:
        """
        The class in use; its offset in ns, ppm, jitter and uncertainty in ns, see ``StreamClock``.
        """

class SoundWriter:
    """
    Writes sound into rings and a queue that another process reads, without Python.

    Rings and queue have one writer at a time: who made them writes nothing meanwhile.
    """

    def __init__(self, records: RecordQueue, wake_fd: int) -> None:
        """Into this queue, setting this eventfd; the caller keeps it."""

    def add(self, ring: SampleRing, number: int) -> None:
        """Add a stream, whose ring was announced under this number."""

    def dropped(self, stream: int) -> int:
        """Return how many blocks of a stream found no room."""

class MicrophoneReader:
    """
    Takes a microphone's blocks as they come and writes each input's mono at the rate of the device.
    """

    def __init__(
        self,
        blocks: CallbackBlocks,
        writer: SoundWriter,
        rate_hz: int,
        a_ns: int,
        b_ns: int,
        c_ns: int,
        channels: Sequence[Sequence[int]],
        epoch: int,
    ) -> None:
        """
        With what ``MicrophoneClock`` and, for each stream of the writer, ``Mixer`` take; beginning with this epoch.
        """

    def run(
        self, silence_ms: int
    ) -> tuple[tuple[int, bool, int], int, int, list[tuple[int, tuple[bool, int, float, int]]]] | None:
        """
        Read without the GIL until a block says something that the user should hear of; None once the blocks
        are closed.

        Returns:
            What the clock told, see ``MicrophoneClock.observe``; its class before and now; streams whose mix
            is weak, and what their ``Mixer`` told.

        Raises:
            TimeoutError: If no block came for that long.
        """

    @property
    def state(self) -> tuple[int, int, int, int, int, list[tuple[int, int]], tuple[int, int, float, int, int]]:
        """
        Epoch; blocks; lost samples; how often the clock has jumped; when the newest block arrived, in
        ns, 0 before the first; of each stream the number of the next block and the capture time of the
        newest in ns; the clock's report.
        """

class Mixer:
    """
    Makes one input's mono of a source's channels: one as it is, or the mean of several.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        """Of these channels, from 0; of all where there is none."""

    def mix(
        self, rows: numpy.typing.NDArray[numpy.float32], rate_hz: int, out: numpy.typing.NDArray[numpy.float32]
    ) -> tuple[bool, int, float, int] | None:
        """
        Mix float32 [channels, samples] into ``out`` [samples].

        Returns what is wrong with the mix of the last two seconds, at their end: whether it is silent beside
        channels that are not, or else far weaker than its own; how many these are; how many dB below the
        loudest of them; the number of the loudest of all.
        """

class PacketReader:
    """Reads the packets that another process has put."""

    def __init__(
        self, *, decode: Callable[[bytes], object], lay_out: Callable[[Any, Any], object], frame: type, arrival: type
    ) -> None:
        """
        ``decode`` makes a ``FrameKind`` of msgpack, and ``lay_out`` a picture of it and a slot.
        """

    def add_records(self, fd: int) -> None:
        """Map the queue; the caller keeps ``fd``, here and below."""

    def add_samples(self, number: int, stream: str, fd: int) -> None:
        """
        Map the ring of samples that was announced under a number for a stream.
        """

    def add_slots(self, number: int, fd: int) -> None:
        """Map the ring of slots that was announced under a number."""

    def slots(self, stream: str, number: int) -> SlotRing:
        """
        Return the ring that a stream writes into from now on; raises IndexError if there is none.
        """

    def take(self, most: int) -> list[Any]:
        """
        Take what is there, oldest first: frames, runs of sound, and other records as they are.

        Of a stream's pictures the newest ``most`` are taken (0: all); the others, and those that were
        overwritten, are arrivals. A packet whose ring is still on its way stays, with all that follow.
        Raises ValueError, IndexError, or what ``decode`` does, for what no writer leaves.
        """

    @property
    def plain(self) -> bool:
        """Whether ``take`` last found pictures and sound alone."""

    @property
    def newest_ring(self) -> int:
        """Number of the ring that was announced last."""

    @property
    def fd(self) -> int:
        """Descriptor of the queue, -1 without one."""

    @property
    def slot_rings(self) -> int:
        """How many rings of slots are mapped."""

    @property
    def newest(self) -> tuple[int, int, int]:
        """
        Arrival and capture time in ns, and epoch, of the newest record, taken or not; zeros before it.
        """

class PictureSeat:
    """Camera frames of any geometry -> the tensor of an image seat."""

    def __init__(
        self,
        kernel: ImageKernel,
        *,
        plan: Callable[[Any], ImagePlan],
        refuse: Callable[[Any, str | None], object],
        raw: bool,
    ) -> None:
        """
        ``plan`` makes that of a frame whose geometry is new; ``refuse`` raises for a frame, and why it is none.
        ``raw``: uint8 [1, frame height, frame width, channels], else float32 [1, channels, height, width].
        """

    def __call__(self, frame: Any, out: numpy.typing.NDArray[Any]) -> None:
        """Write a frame."""

    def plan_of(self, frame: Any) -> ImagePlan:
        """Return the plan of a frame."""

class PictureFill:
    """Writes the frame of a trigger: the ``fill`` of an image feed."""

    def __init__(self, name: str, seat: PictureSeat) -> None: ...
    def __call__(self, snapshot: Any, out: numpy.typing.NDArray[Any], read_audio: Any, end: int | None = None) -> None:
        """Write the frame of the seat into ``out``."""

def copy_planes(planes: list[tuple[Any, int, int, int]], out: numpy.typing.NDArray[numpy.uint8]) -> None:
    """
    Copy planes of bytes one after the other into ``out``, contiguous and as large as all of them or larger.

    Of each: what has its bytes, how many lie between the begin of two rows, rows, and bytes to take of each.
    Raises ValueError where a plane has fewer bytes than that, or ``out`` is too small.
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

    @property
    def capacity(self) -> int:
        """How many bytes it holds, with four for each record."""

    @property
    def fd(self) -> int:
        """Descriptor of the shared memory, for ``attach`` in another process."""

class Regressor(TaskReader):
    """One number: clamped, averaged over time, told to six digits."""

    def __init__(
        self, tau_ms: float | None, clamp: tuple[float, float] | None, *, unit: str, convert: Callable[[Any], Any]
    ) -> None:
        """``convert`` is that of ``Classifier``."""

class ResultRing:
    """Writes results into a ring that another process reads."""

    def __init__(
        self,
        ring: SlotRing,
        wake: int,
        *,
        steal: bool,
        announce: Callable[[str, Any, str], int | None],
        refer: Callable[[Any], tuple[Any, int, int, bytes]],
    ) -> None:
        """
        ``wake`` is the eventfd of the reader; with ``steal``, the oldest result that nobody has taken makes
        room. ``announce`` gives a stream's ring, of ``slots`` or ``samples``, to the reader, and returns its
        number, or None; ``refer`` says of a frame that came from no other process where it lies: ring, slot,
        what that holds, record.
        """

    def hear(self, name: str, ring: SampleRing, window: int, rate_hz: int) -> None:
        """Tell of the ring that holds the sound of an input."""

    def pack(self, result: bytes, from_ns: int, snapshot: object, outputs: bytes, spans: bytes) -> int:
        """
        Make a message of a result; return its size. ``result`` and ``outputs`` are MessagePack.
        """

    def send(self) -> bool:
        """
        Publish that message and wake the reader; False if no slot is free. Never blocks.

        Raises ValueError if it does not fit into a slot.
        """

class RingSlot:
    """
    A slot that its reader holds; called, it goes back to its writer, once.

    Without ``held`` its owner only knows of it, and may copy it while it lasts.
    """

    def __init__(self, ring: SlotRing, index: int, seq: int, *, held: bool = True) -> None: ...
    def __call__(self) -> None:
        """Give the slot back; idempotent."""

    def copy(self, data: numpy.typing.NDArray[numpy.uint8], out: numpy.typing.NDArray[numpy.uint8]) -> bool:
        """
        Copy what lies in the slot to ``out``; False if it holds something else by now.
        """

    @property
    def ring(self) -> SlotRing:
        """The ring that it is one of."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def seq(self) -> int:
        """What it holds."""

    @property
    def record(self) -> bytes:
        """What its writer says of the frame in it, see ``FrameRecords``."""

    @record.setter
    def record(self, arg: bytes, /) -> None: ...

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

    def read(self, ring: SampleRing, end: int, out: numpy.typing.NDArray[numpy.float32]) -> None:
        """
        Write [1, frames, n_mels] of the window that ends before index ``end`` of the ring.
        """

    def forget(self) -> None:
        """Forget the sound that was heard: what comes is other sound."""

class SoundFill:
    """
    Writes the features of a trigger's sound: the ``fill`` of an audio feed.
    """

    def __init__(
        self,
        name: str,
        sliding: SlidingLogMel,
        *,
        ring: Callable[[Any], SampleRing | None],
        slow: Callable[[Any, Any, Any, int], object],
        refuse: Callable[[str], object],
    ) -> None:
        """
        ``ring`` gives the ring that holds the sound of a reader, or None: then ``slow`` writes them.

        ``refuse`` raises for an array that does not fit.
        """

    def __call__(
        self, snapshot: Any, out: numpy.typing.NDArray[numpy.float32], read_audio: Any, end: int | None = None
    ) -> None:
        """
        Write the window that ends before index ``end``, by default where the snapshot cuts, into ``out``.
        """

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

class SoundRun:
    """
    Blocks of one stream, one after the other, with copies of their samples.
    """

    @property
    def stream(self) -> str:
        """Name of the input it feeds."""

    def __len__(self) -> int: ...
    @property
    def arrive_ns(self) -> int:
        """When the first of them arrived, in ns."""

    @property
    def newest(self) -> tuple[int, int]:
        """Arrival and capture time of the last of them, in ns."""

    def split(self, arrive_ns: int) -> SoundRun:
        """
        Keep the blocks that arrived before ``arrive_ns``, and return the others; either may be empty.
        """

    def blocks(self) -> list[tuple[int, int, int, int, int, int, int, numpy.typing.NDArray[numpy.float32]]]:
        """
        Return seq, capture and arrival in ns, epoch, uncertainty in ns, quality, samples that are missing before it,
        and a copy of its samples, float32 [n], of each.
        """

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
    Packets in, snapshots out, on capture time alone; it reads no clock. Times are ns.

    Inputs are numbered in the order in which they are added. A frame is released once nobody wants it.
    """

    def __init__(
        self,
        *,
        started_ns: int,
        wait_ns: int,
        hold_ns: int,
        every_ns: int,
        timer: bool,
        latest: bool,
        lossless: bool,
        absent: dict[str, bool],
        snapshot: type,
        explain: Callable[[str, str, int], str],
    ) -> None:
        """
        ``absent`` names every input of a snapshot; ``explain`` says of a name why its input is absent: by a word, and
        by how many ns.
        """

    def add_image(self, *, name: str, live: bool, policy: str, max_age_ns: int | None, trigger: bool) -> int:
        """Add an image input; return its number."""

    def add_audio(
        self,
        *,
        name: str,
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
        name: str,
        live: bool,
        policy: str,
        max_age_ns: int | None,
        trigger: bool,
        ttl_ns: int | None,
        period_ns: int | None,
        paced: bool,
    ) -> int:
        """Add an input of texts or arrays; return its number."""

    def push_frame(self, input: int, frame: object) -> None:
        """Take a frame."""

    def push_value(self, input: int, value: object, blank: bool) -> None:
        """Take a text or an array."""

    def push_block(self, input: int, block: object) -> None:
        """Take a block; its samples are float32 [n]."""

    def push_run(self, input: int, run: SoundRun) -> None:
        """Take the blocks of a run, as ``push_block`` does each."""

    def push_arrival(self, input: int, packet: object) -> None:
        """Take the times of a packet that made room for a newer one."""

    def push_end(self, input: int, packet: object, with_reason: bool) -> bool:
        """
        Note that the source has nothing more to say; False: it is an old one's end.
        """

    def advance(self, now_ns: int) -> None:
        """Tell the time."""

    def next_deadline_ns(self) -> int | None:
        """Return when ``poll`` must be called even if nothing arrives, or None."""

    def poll(self) -> list[Any]:
        """Return the snapshots that are ready, in order of capture time."""

    def trim(self) -> None:
        """Let go of what neither a trigger nor what was polled so far can want."""

    def close(self) -> None:
        """Let go of everything."""

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

class Answers:
    """Reads the tasks of one bundle at each trigger, and writes its result."""

    def __init__(
        self,
        tasks: Sequence[tuple[str, TaskReader, Any, str, Callable[[Any], Any] | None]],
        times: TriggerTimes,
        wall_ns: int,
    ) -> None:
        """
        Of each task its name, what reads it, the stage and the name of its output, and what gives that output,
        or None, at a snapshot; without, it is there once the stage has run. ``wall_ns`` is added to capture
        times to have them on the wall clock.
        """

    def read(self, snapshot: object) -> None:
        """
        Take up the outputs that are there; raises what the reader of task number ``at`` raises.
        """

    def look(self, snapshot: object) -> None:
        """Look again which of the outputs that were read are there."""

    def reset(self) -> None:
        """Let every task forget the past."""

    @property
    def at(self) -> int:
        """The task that was read last."""

    def tell(
        self, snapshot: object, valid: bool, start_ns: int, inferred_ns: int, preprocess_ns: int, infer_ns: int
    ) -> tuple[bytes, int, int]:
        """
        Tell what was read, undefined where it is not ``valid``, and count the times.

        Returns a ``Result`` in MessagePack, from when its latency counts, and when its tasks were told.
        """

class Verifier(TaskReader):
    """One score: do the inputs agree? Undefined with fewer than two of them."""

    def __init__(
        self,
        temperature: float | None,
        tau_ms: float | None,
        enter: float,
        leave: float,
        hold_ms: float | None,
        *,
        labels: Sequence[str],
        convert: Callable[[Any], Any],
        refuse: Callable[[float, float], object],
    ) -> None:
        """
        ``labels`` are (no, yes). Without a ``temperature`` the output is a probability, otherwise a logit.
        The other arguments are those of ``Classifier``.
        """

def eventfd_set(fd: int) -> None:
    """
    Set an eventfd; one that can be set no more is set already. Never blocks.
    """

def eventfd_clear(fd: int) -> bool:
    """Clear an eventfd; tell whether it was set. Never blocks."""

def eventfd_wait(fd: int, timeout_s: float | None) -> bool:
    """Wait for an eventfd, and clear it; False if it was not set in time."""
