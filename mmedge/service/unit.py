"""The unit file of a run: what starts it with systemd, watches it, and keeps it in its own room."""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mmedge
from mmedge.address import Address
from mmedge.capture import parse
from mmedge.errors import ConfigError
from mmedge.service.systemd import expanded, path_word, setting, specifiers, unit_name, word
from mmedge.version import __version__

UNITS, SECRETS = Path("/etc/systemd/system"), Path("/etc/mmedge")
_WATCHDOG_S, _MEMORY = 30.0, "75%"
# These are empty for a service (ProtectHome, PrivateTmp); what it needs of them is put in, read-only.
_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
# Kind of a source -> groups that may open its devices, and the devices.
_DEVICES = {
    "v4l2": (("video",), ("char-video4linux", "char-media")),
    "csi": (("video",), ("char-video4linux", "char-media")),
    "gst": (("video",), ("char-video4linux", "char-media")),
    "microphone": (("audio",), ("char-alsa",)),
}
_OWN = "[X-Mmedge]"  # a section that systemd ignores
_GPU = tuple(map(Path, ("/dev/nvidiactl", "/dev/nvmap", "/dev/nvgpu")))
_LOCAL_SINKS = ("console", "jsonl", "video")
_MEMORY_FORM = re.compile(r"[1-9]\d*[KMGT]?|[1-9]\d?%|100%")
_HARDENING = """\
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
ProtectProc=invisible
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
LockPersonality=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077
# A dump of the memory would hold pictures and sound.
LimitCORE=0"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """A run of a bundle as a service of systemd.

    Attributes:
        name: What it is called; any text.
        bundle: Path of the bundle.
        inputs: Input name -> address.
        sinks: As ``--sink`` takes them; relative paths lie in the service's state folder.
        projects: ``mmedge.toml`` files whose modules the bundle may call.
        options: Further options of ``mmedge run``.
        memory: The most it may use, in bytes (``K``, ``M``, ``G``) or in percent of the machine's.
        watchdog_s: After how many seconds without a result it is started again; None never does.
        secrets: Folder of the files with the addresses that hold a secret.

    Example:
        >>> unit = Unit(name="door", bundle=Path("/srv/door.mmedge"), inputs={"image": Address("0")})
        >>> unit.file, "ExecStart=" in unit.text, "SupplementaryGroups=video" in unit.text
        ('mmedge-door.service', True, True)
    """

    name: str
    bundle: Path
    inputs: Mapping[str, Address]
    sinks: Sequence[str] = ()
    projects: Sequence[Path] = ()
    options: Sequence[str] = ()
    memory: str = _MEMORY
    watchdog_s: float | None = _WATCHDOG_S
    secrets: Path = SECRETS
    _absolute: dict[str, Address] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.file) > 200:
            raise ConfigError(
                "the name of the service is empty or too long", where="--name", fix="use 1 to 100 characters"
            )
        if not _MEMORY_FORM.fullmatch(self.memory):
            raise ConfigError(
                f"'{self.memory}' is not an amount of memory", where="--memory", fix="for example 2G, 800M or 75%"
            )
        if self.watchdog_s is not None and not 1 <= self.watchdog_s <= 86_400:
            raise ConfigError(
                f"the watchdog must be 1 to 86400 s, got {self.watchdog_s}",
                where="--watchdog",
                fix=f"leave it out to use {_WATCHDOG_S:g}, or use 0 for none",
            )
        # systemd takes what follows the colon of LoadCredential= as it is: nothing can be quoted there.
        if not str(self.secrets.absolute()).isprintable():
            raise ConfigError(
                "the path has characters that cannot be seen", where="--secrets", fix="use a path without them"
            )
        self._absolute.update({name: _absolute(name, address) for name, address in self.inputs.items()})

    @property
    def file(self) -> str:
        """Name of the unit file."""
        return f"mmedge-{unit_name(self.name)}.service"

    @property
    def folder(self) -> str:
        """Name of its folders below ``/var/lib`` and ``/var/cache``; two names never share one."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)
        return f"mmedge-{plain}" if plain == self.name else f"mmedge-{plain}-{zlib.crc32(self.name.encode()):08x}"

    @property
    def credentials(self) -> dict[Path, Address]:
        """Files that have to be there, for root alone, each with the address that it holds."""
        return {path: address for path, address in self._secrets() if address is not None}

    def _secrets(self) -> Iterator[tuple[Path, Address | None]]:
        """Yield for each input, and then for each sink, the file that its address would have, and the address.

        It is None where nothing in it is secret.
        """
        for kind, addresses in (("input", self._absolute.values()), ("sink", map(Address, self.sinks))):
            for number, address in enumerate(addresses):
                yield self.secrets.absolute() / f"{self.folder}.{kind}{number}", address if address.masked else None

    @property
    def command(self) -> list[str]:
        """Words of the command line, quoted for ``ExecStart=``; an address with a secret is a credential."""
        secrets = self._secrets()

        def shown(before: str, text: str) -> str:
            path, address = next(secrets)
            if address is None:
                return word(before + text)
            return expanded(f"{before.replace('$', '$$')}@${{CREDENTIALS_DIRECTORY}}/{path.name}")

        words = [word(str(part)) for part in (sys.executable, "-m", "mmedge", "run", self.bundle.absolute())]
        for name, address in self._absolute.items():
            words += ["--input", shown(f"{name}=", address.reveal())]
        for sink in self.sinks:
            words += ["--sink", shown("", sink)]
        for project in self.projects:
            words += ["--allow-callable", word(str(project.absolute()))]
        return words + [word(option) for option in self.options]

    @property
    def text(self) -> str:
        """The unit file."""
        networked = self._networked
        after = "After=network-online.target sound.target\nWants=network-online.target\n"
        alone = "After=sound.target\n"
        watchdog = "" if self.watchdog_s is None else f"WatchdogSec={self.watchdog_s:g}\n"
        loaded = "".join(f"LoadCredential={path.name}:{specifiers(str(path))}\n" for path in self.credentials)
        bound = "".join(f"BindReadOnlyPaths={path_word(str(path))}\n" for path in self._bound())
        if self._kinds & {"csi"}:  # NVIDIA's camera daemon listens there
            bound += "BindPaths=-/tmp/argus_socket\n"
        return (
            f"# Made by mmedge {__version__}. Try it by hand first: sudo systemd-analyze verify {self.file}\n"
            f"[Unit]\nDescription=mmedge: {setting(self.name)}\n"
            f"{after if networked else alone}"
            "# A camera that is away for a day is no reason to give up.\nStartLimitIntervalSec=0\n\n"
            "[Service]\nType=notify\nNotifyAccess=main\n"
            f"ExecStart={' '.join(self.command)}\n"
            "# Puts in the bundle that lies at that path by then, and loses no frame.\n"
            "ExecReload=kill -HUP $MAINPID\n"
            f"{watchdog}TimeoutStartSec=15min\nTimeoutStopSec=20\nKillMode=mixed\n"
            "Restart=on-failure\nRestartSec=3\n"
            "# A wrong option or a damaged bundle does not get better by trying again.\nRestartPreventExitStatus=2 4\n"
            f"MemoryMax={self.memory}\n\n"
            "# Its own user, which exists while it runs; its files: /var/lib and /var/cache.\n"
            f"DynamicUser=yes\n{self._groups()}"
            f"StateDirectory={self.folder}\nStateDirectoryMode=0700\n"
            f"CacheDirectory={self.folder}\nCacheDirectoryMode=0700\n"
            f"WorkingDirectory=%S/{self.folder}\n"
            f"Environment=XDG_CACHE_HOME=%C/{self.folder} XDG_CONFIG_HOME=%S/{self.folder}/config\n"
            f"{loaded}{bound}\n{_HARDENING}\n{self._room(networked)}\n"
            "[Install]\nWantedBy=multi-user.target\n\n"
            "# For `mmedge service update`; systemd leaves it alone.\n"
            f"{_OWN}\nBundle={json.dumps(str(self.bundle.absolute()))}\nInputs={json.dumps(list(self._absolute))}\n"
        )

    @property
    def hints(self) -> list[str]:
        """What would keep it from working as it is."""
        found = [
            f"'{path}' can be read by its owner alone, so not by the service: chmod -R o+rX {path}"
            for path in (self.bundle.absolute(), *self.projects)
            if path.exists() and not _readable(path)
        ]
        found += [
            f"sink '{Address(sink)}': the service may write below /var/lib/{self.folder} alone; use a relative path"
            for sink in self.sinks
            if re.match(r"\w+:/(?!/)", sink)
        ]
        return found

    @property
    def _kinds(self) -> set[str]:
        return {parse(address).kind for address in self._absolute.values()}

    @property
    def _networked(self) -> bool:
        far = any(sink.partition(":")[0] not in _LOCAL_SINKS for sink in self.sinks)
        return far or bool(self._kinds & {"network", "gst"}) or any(o.startswith("--view") for o in self.options)

    def _groups(self) -> str:
        groups = dict.fromkeys(group for kind in sorted(self._kinds) for group in _DEVICES.get(kind, ((), ()))[0])
        if any(path.exists() for path in _GPU):
            groups["video"] = None
        return f"SupplementaryGroups={' '.join(groups)}\n" if groups else ""

    def _room(self, networked: bool) -> str:
        """Return which devices and networks it may use."""
        if any(path.exists() for path in _GPU):
            lines = ["# A GPU has devices of many names: none is refused."]
        else:
            devices = dict.fromkeys(
                device for kind in sorted(self._kinds) for device in _DEVICES.get(kind, ((), ()))[1]
            )
            lines = ["DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in devices)]
        if networked:
            return "\n".join([*lines, "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n"])
        return "\n".join([*lines, "PrivateNetwork=yes\nRestrictAddressFamilies=AF_UNIX AF_NETLINK\n"])

    def _bound(self) -> list[Path]:
        """Return what it needs of the folders that are hidden from it, the outermost of each."""
        code = [Path(sys.prefix), Path(sys.base_prefix), Path(mmedge.__file__).parent.parent]
        files = [Path(parse(a).target) for a in self._absolute.values() if parse(a).kind in ("file", "text")]
        wanted = {
            path.absolute()
            for path in (*code, self.bundle, *(project.parent for project in self.projects), *files)
            if any(hidden in path.absolute().parents for hidden in _HIDDEN)
        }
        return sorted(path for path in wanted if not wanted & set(path.parents))


def served(text: str, where: str) -> tuple[Path, list[str]]:
    """Return the bundle that a unit serves, and the inputs that it gives a source, of the text of its file.

    Args:
        text: The unit.
        where: Its path, for errors.

    Raises:
        ConfigError: If it does not say so, or if what takes the bundle's place would not be seen by the service.
    """
    lines = text.partition(f"{_OWN}\n")[2].splitlines()
    try:
        found = {key: json.loads(value) for key, _, value in (line.partition("=") for line in lines[:2])}
        bundle, inputs = Path(found["Bundle"]), [str(name) for name in found["Inputs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "the unit does not say which bundle it serves", where=where, fix="install it again: mmedge service --force"
        ) from error
    if any(hidden in bundle.parents for hidden in _HIDDEN):
        raise ConfigError(
            "the service sees this bundle as the file that it was at the start",
            where=str(bundle),
            fix="replace it and restart the service; or install it with a bundle in /srv or /opt",
        )
    return bundle, inputs


def _readable(path: Path) -> bool:
    """Return whether anybody may read it; folders on the way count where they are not hidden anyway."""
    way = [] if any(hidden in path.parents for hidden in _HIDDEN) else path.parents
    return bool(path.stat().st_mode & 0o004) and all(folder.stat().st_mode & 0o001 for folder in way)


def _absolute(name: str, address: Address) -> Address:
    """Return an address that means the same in another working directory.

    Raises:
        ConfigError: If it means nothing to a service.
    """
    text, kind = address.reveal(), parse(address).kind
    if text == "text://stdin":
        raise ConfigError(
            "a service has no standard input", where=f"input '{name}'", fix="use text://FILE, which is followed"
        )
    for scheme in ("text://", "sdp:", ""):
        rest = text.removeprefix(scheme)
        if text.startswith(scheme) and (kind in ("text", "file") or scheme or text.endswith(".sdp")):
            return address if rest.startswith("/") or "://" in rest else Address(f"{scheme}{Path.cwd()}/{rest}")
    return address
