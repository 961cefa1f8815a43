"""The unit that `mmedge service` writes: systemd reads it as it was meant, and it shows no secret."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.address import Address
from mmedge.errors import ConfigError
from mmedge.export.brought.new import _write_unit
from mmedge.service import Unit
from mmedge.service.systemd import path_word, setting, unit_name, word

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=30)


def unit(**changes: Any) -> Unit:
    inputs = {"image": Address("0"), "audio": Address("mic://default")}
    return Unit(**{"name": "door", "bundle": Path("/srv/door.mmedge"), "inputs": inputs, **changes})


def settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def words(line: str) -> list[str]:
    """Read a command line as systemd does: systemd.syntax (quoting, escapes), specifiers, variables."""
    escapes = {"n": "\n", "t": "\t", "s": " ", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
    found: list[str] = []
    for part in re.findall(r'"(?:\\.|[^"\\])*"|[^\s"]+', line):
        text = part[1:-1] if part.startswith('"') else part
        raw = bytearray()
        for code, escaped, plain in re.findall(r"\\x([0-9a-f]{2})|\\([^x])|([^\\]+)", text, re.DOTALL):
            raw += bytes([int(code, 16)]) if code else (escapes.get(escaped, escaped) or plain).encode()
        found.append(raw.decode().replace("%%", "%").replace("$$", "$"))
    return found


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_systemd_reads_the_words_that_were_meant(texts: list[str]) -> None:
    line = " ".join(map(word, texts))
    assert "\n" not in line
    assert words(line) == texts


@given(TEXT)
def test_settings_stay_on_their_line(text: str) -> None:
    for written in (setting(text), path_word(text)):
        assert written.isprintable() or not written
        assert not re.search("(?<!%)(%%)*%(?!%)", written)
    assert re.fullmatch(r"(?:[\w:.-]|\\x[0-9a-f]{2})+", unit_name(text), re.ASCII)


def test_names_are_escaped_as_systemd_does() -> None:
    if shutil.which("systemd-escape") is None:
        pytest.skip("systemd is not installed")
    for name in ("my kiosk", "50%", "é", ".hidden", "a/b"):
        done = subprocess.run(["systemd-escape", name], capture_output=True, text=True, check=True)
        assert unit_name(name) == done.stdout.strip()


@pytest.mark.parametrize("name", ["door", "my 50% $kiosk", "Tür\u202e\n[Service]", 'say "x" \\'])
def test_systemd_takes_it(name: str, tmp_path: Path) -> None:
    odd = tmp_path / 'a b%c $d "e".mmedge'
    odd.touch()
    sinks = ["jsonl:out 1.jsonl", "jsonl:100%.jsonl"]
    made = unit(name=name, bundle=odd, sinks=sinks, options=["--record", "new $folder"])
    assert words(made.text.partition("ExecStart=")[2].partition("\n")[0]) == [
        *(sys.executable, "-m", "mmedge", "run", str(odd), "--input", "image=0", "--input", "audio=mic://default"),
        *("--sink", sinks[0], "--sink", sinks[1], "--record", "new $folder"),
    ]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    path = tmp_path / made.file
    path.write_text(made.text)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if made.file in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_it_is_kept_in_its_own_room() -> None:
    said = settings(unit().text)
    assert said["Type"] == ["notify"]
    assert said["WatchdogSec"] == ["30"]
    assert said["Restart"] == ["on-failure"]
    assert said["DynamicUser"] == said["PrivateNetwork"] == ["yes"]
    assert said["ProtectSystem"] == ["strict"]
    assert said["MemoryMax"] == ["75%"]
    assert set(said["SupplementaryGroups"][0].split()) == {"audio", "video"}
    assert said["StateDirectory"] == said["CacheDirectory"] == ["mmedge-door"]


def test_what_it_may_use_follows_from_its_inputs() -> None:
    listens = settings(unit(inputs={"audio": Address("mic://default")}).text)
    assert "AF_INET" not in listens["RestrictAddressFamilies"][0]
    for far in (
        unit(inputs={"image": Address("rtsp://camera/live")}),
        unit(sinks=["mqtt://broker/door"]),
        unit(options=["--view", "0.0.0.0:8080"]),
    ):
        said = settings(far.text)
        assert "PrivateNetwork" not in said
        assert "AF_INET" in said["RestrictAddressFamilies"][0]
        assert "network-online.target" in said["Wants"][0]
    assert "WatchdogSec" not in settings(unit(watchdog_s=None).text)


def test_secrets_are_credentials() -> None:
    hidden = unit(inputs={"image": Address("rtsp://me:pw%41x@camera/live"), "audio": Address("mic://default")})
    assert "pw" not in hidden.text
    ((path, address),) = hidden.credentials.items()
    assert address.reveal() == "rtsp://me:pw%41x@camera/live"
    assert f"LoadCredential={path.name}:{path}" in hidden.text
    assert f"image=@${{CREDENTIALS_DIRECTORY}}/{path.name} " in hidden.text
    told = unit(inputs={"image": Address("0")}, sinks=["jsonl:x", "mqtt://me:pw%41x@broker/door?on=event"])
    assert "pw" not in told.text
    (path,) = told.credentials
    assert f"--sink jsonl:x --sink @${{CREDENTIALS_DIRECTORY}}/{path.name}\n" in told.text


def test_the_folder_of_secrets_is_named_as_systemd_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = unit(inputs={"image": Address("rtsp://me:pw%41x@camera/live")}, secrets=Path("a b:100%"))
    (path,) = made.credentials
    assert path.parent == tmp_path / "a b:100%"
    loaded = settings(made.text)["LoadCredential"][0].partition(":")[2]
    assert loaded.replace("%%", "%") == str(path)  # without quotes: systemd would take them as part of the path
    if shutil.which("systemd-analyze") is not None:
        file = tmp_path / made.file
        file.write_text(made.text)
        done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
        assert [line for line in done.stderr.splitlines() if made.file in line] == []


def test_two_names_share_no_folder() -> None:
    assert len({unit(name=name).folder for name in ("a b", "a-b", "a  b", "a/b")}) == 4


def test_hidden_folders_are_put_in(tmp_path: Path) -> None:
    path = tmp_path / "x y" / "door.mmedge"  # below /tmp
    said = settings(unit(bundle=path, inputs={"image": Address(str(tmp_path / "clip.mp4"))}).text)
    if Path("/tmp") in tmp_path.parents:
        assert f'"{path}"' in said["BindReadOnlyPaths"]
        assert str(tmp_path / "clip.mp4") in said["BindReadOnlyPaths"]


def test_relative_paths_are_those_of_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = unit(bundle=Path("b.mmedge"), inputs={"image": Address("c.mp4"), "text": Address("text://said.txt")})
    for text in (f"{tmp_path}/b.mmedge", f"image={tmp_path}/c.mp4", f"text=text://{tmp_path}/said.txt"):
        assert text in made.text


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": " "}, "empty or too long"),
        ({"name": "x" * 300}, "empty or too long"),
        ({"memory": "lots"}, "not an amount"),
        ({"memory": "101%"}, "not an amount"),
        ({"watchdog_s": 0.1}, "1 to 86400"),
        ({"inputs": {"text": Address("text://stdin")}}, "no standard input"),
        ({"secrets": Path("/etc/a\nb")}, "cannot be seen"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        unit(**changes)


def test_it_says_what_the_service_cannot_read(tmp_path: Path) -> None:
    bundle = tmp_path / "door.mmedge"
    bundle.touch(mode=0o600)
    assert any("chmod" in hint for hint in unit(bundle=bundle).hints)
    bundle.chmod(0o644)
    assert unit(bundle=bundle).hints == [] or Path("/tmp") not in tmp_path.parents
    assert "relative path" in unit(sinks=["jsonl:/var/log/x", "mqtt://broker/door"]).hints[0]
    assert unit(sinks=["mqtt://broker/door"]).hints == []


def test_what_is_typed_comes_from_files_of_the_project(tmp_path: Path) -> None:
    path = _write_unit(tmp_path, "door", {"eye": "0", "text": "text://stdin", "other": "text://said2.txt"})
    assert path is not None
    for words in ("eye=0", f"text=text://{tmp_path}/said.txt", f"other=text://{tmp_path}/said2.txt"):
        assert words in path.read_text()
    assert {file.name for file in tmp_path.glob("*.txt")} == {"said.txt", "said2.txt"}
    assert _write_unit(tmp_path, "pushed", {}) is None
