"""Every place that knows kinds of sources takes it from their one table: a kind that is there works everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.calibration.offsets import Offset, alignment, device_name, store
from mmedge.capture import KINDS, open_sources, parse
from mmedge.capture.uri import FORMS
from mmedge.doctor.devices_probe import probe_devices
from mmedge.errors import ConfigError, DeviceError, MissingDependencyError
from mmedge.replay.inputs import plain_seats

SEATS: dict[str, Input] = {
    "image": ImageInput(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=100),
    "text": TextInput(max_tokens=4),
}
ADDRESS = {name: re.split(r"[, ]", kind.forms)[0] for name, kind in KINDS.items()}
LIVE = [name for name, kind in KINDS.items() if kind.live]
CAMERA, MICROPHONE = "0", "mic://default"


@pytest.mark.parametrize("name", KINDS)
def test_the_first_form_is_an_address_of_its_kind(name: str) -> None:
    kind, uri = KINDS[name], parse(ADDRESS[name])
    assert uri.kind == name
    assert uri.live == kind.live
    assert uri.device[0] == name
    assert kind.forms in FORMS
    assert kind.feeds
    assert set(kind.feeds) <= set(SEATS)


def test_no_two_kinds_have_one_scheme() -> None:
    schemes = [scheme for kind in KINDS.values() for scheme in kind.schemes]
    assert not [(one, two) for one in schemes for two in schemes if one is not two and one.startswith(two)]


@pytest.mark.parametrize("name", LIVE)
def test_a_live_device_has_one_name_which_is_an_address(name: str) -> None:
    assert parse(device_name(ADDRESS[name])) == parse(ADDRESS[name])


@pytest.mark.parametrize("name", sorted(set(KINDS) - set(LIVE)))
def test_what_is_not_live_is_neither_calibrated_nor_probed(name: str) -> None:
    with pytest.raises(ConfigError, match="not a live device"):
        device_name(ADDRESS[name])
    with pytest.raises(ConfigError, match="not a live device"):
        probe_devices([ADDRESS[name]])


@pytest.mark.parametrize("name", KINDS)
def test_a_recording_takes_what_the_kind_feeds(name: str) -> None:
    for modality in KINDS[name].feeds:
        seat = plain_seats({modality: ADDRESS[name]})[modality]
        assert type(seat) is type(SEATS[modality])
    if len(KINDS[name].feeds) == 1:
        assert plain_seats({"front": ADDRESS[name]})
    else:
        with pytest.raises(ConfigError, match="pictures and sound"):
            plain_seats({"front": ADDRESS[name]})


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("modality", SEATS)
def test_it_is_opened_for_what_it_feeds_and_refused_for_the_rest(name: str, modality: str) -> None:
    """What is not there, or not installed, is an error of the machine; nothing else may go wrong."""
    inputs, uris = {modality: SEATS[modality]}, {modality: ADDRESS[name]}
    if modality not in KINDS[name].feeds:
        with pytest.raises(ConfigError, match=f"a {name} source cannot feed the {modality} input"):
            open_sources(inputs, uris)
        return
    try:
        (source,) = open_sources(inputs, uris)
    except (ConfigError, DeviceError, MissingDependencyError) as error:
        refusal = error
    else:
        source.stop()
        assert source.streams == (modality,)
        assert source.live == KINDS[name].live
        return
    # No such file, no standard input, a pipeline without a size; no such device, no such package.
    assert refusal.fix is not None
    assert "cannot feed" not in refusal.message


@pytest.mark.parametrize("name", LIVE)
def test_a_calibration_knows_the_constant_delay_of_the_kind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for modality in KINDS[name].feeds:
        uris = {"image": CAMERA, "audio": MICROPHONE} | {modality: ADDRESS[name]}
        names = {each: device_name(uri) for each, uri in uris.items()}
        store(Offset(**names, offset_ns=1000, uncertainty_ns=100, mad_ns=10, pairs=5))
        shifts, notes = alignment({each: SEATS[each] for each in uris}, uris)
        assert shifts[modality].known_ns == KINDS[name].constant_ns
        assert notes == []
