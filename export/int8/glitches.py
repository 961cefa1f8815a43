"""Glitches among calibration samples: found before anything runs, left out, and named.

A glitch is isolated: those before and behind it in time are usual. What lasts, a word in silence or a lamp at night, is
what the network will meet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, TensorInput
from mmedge.errors import ConfigError

from ..peaks import beyond
from ..recipe import Recipe
from ..recordings import LazySamples, RawSample

MOST = 0.05  # a rule that drops more than this share has not found glitches
IN_A_ROW = 2
# PCM is -1..1. What lies within is sound, however rare; of loud recordings a decoder makes a little more.
FULL_SCALE, MOST_OF_PCM = 1.0, 4.0
_log = logging.getLogger(__name__)


def usable(samples: Sequence[RawSample], recipe: Recipe) -> tuple[Sequence[RawSample], tuple[str, ...]]:
    """Leave out the glitches among samples.

    Only raw float inputs have any: pictures are 0..255 and texts are numbers of words, whatever they show.

    Args:
        samples: In order of time.
        recipe: Gives the inputs.

    Returns:
        The other samples, and the names of those that are left out.

    Raises:
        ConfigError: If a sound is not PCM of -1..1.
        CheckError: If an input is not finite.
    """
    floats = {
        name: FULL_SCALE if isinstance(spec, AudioInput) else 0.0
        for name, spec in recipe.inputs.items()
        if isinstance(spec, AudioInput) or (isinstance(spec, TensorInput) and spec.dtype.startswith("float"))
    }
    maxima: dict[str, list[float]] = {name: [] for name in floats}
    recordings: list[str | None] = []
    lasting: list[frozenset[str]] = []
    for sample in samples if floats else ():
        recordings.append(sample.recording)
        lasting.append(sample.lasting)
        for name in floats:
            maxima[name].append(float(np.abs(sample.arrays[name]).max(initial=0.0)))
    bad = np.zeros(len(samples), np.bool_)
    for name, least in floats.items():
        own = np.array(maxima[name])
        if least and np.median(own) > MOST_OF_PCM:
            raise ConfigError(
                f"input '{name}' has values up to {own.max():.4g}, half of the samples beyond {np.median(own):.4g}",
                where="samples",
                fix="give PCM as float32 in -1..1: divide 16-bit numbers by 32768",
            )
        found = isolated(own, least, recordings) & ~np.array([name in lasts for lasts in lasting], np.bool_)
        if found.sum() > MOST * len(own):
            _log.warning(
                "%d of %d calibration samples are far outside the usual range of input '%s': too many to be glitches, "
                "so none is left out",
                found.sum(),
                len(own),
                name,
            )
            continue
        bad |= found
    kept = np.flatnonzero(~bad)
    dropped = tuple(samples[int(index)].name for index in np.flatnonzero(bad))
    return (LazySamples(samples.__getitem__, kept.tolist()) if dropped else samples), dropped


def isolated(
    maxima: npt.NDArray[np.floating], least: float = 0.0, recordings: Sequence[str | None] | None = None
) -> npt.NDArray[np.bool_]:
    """Tell which frames are far outside the usual range while their neighbours are not.

    ``maxima`` is float [frames], the result bool [frames].

    Args:
        maxima: The largest magnitude of one input per frame, in order of time.
        least: What is not larger than this is not.
        recordings: What each frame is of; by default all of one. Without a frame of the same before and behind it,
            nothing is known of what lasts: what is at the end of a recording, or of none, is not.

    Returns:
        True where a value is beyond ten times the usual spread and more than twice the usual value, not more than two
        such in a row, and more than twice the largest of all others: what is as large as something that lasts is as
        real. Median and median deviation decide what is usual, so that glitches do not hide themselves.
    """
    found, unknown = np.zeros((2, len(maxima)), np.bool_)
    unusual = beyond(maxima, least)
    own = recordings or [""] * len(maxima)
    end = 0
    for (is_beyond, recording), run in groupby(zip(unusual, own, strict=True)):
        start, end = end, end + len(list(run))
        if is_beyond and end - start <= IN_A_ROW:
            known = recording is not None and start > 0 and end < len(own) and own[start - 1] == recording == own[end]
            (found if known else unknown)[start:end] = True
    others = maxima[~(found | unknown)].max(initial=0.0)
    # Where all else is silence, the few that are not are all that there is to calibrate on.
    return found & (maxima > 2.0 * others) if others > 0 else np.zeros(len(maxima), np.bool_)
