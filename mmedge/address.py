"""Source addresses as values: what is secret in one leaves it by ``reveal`` alone, every text form of it is masked.

An ``Address`` is made of a text before anything looks at that text, so that no error about it can show it. What is
shown is chosen by lists of what is known to be harmless; everything else becomes ``***``.
"""

from __future__ import annotations

import base64
import re
import threading
from typing import NoReturn
from urllib.parse import quote, unquote

MASK = "***"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# No peer, no password: what follows is a path.
_LOCAL = _words("v4l2 csi sdp file mic text test push")
_SCHEMES = _LOCAL | _words("rtsp rtsps udp http https rtmp rtmps srt tcp rtp gst")
# Parameters whose values are shown, if they look like what such a parameter takes.
_PARAMS = _words(
    "width height fps fourcc decode channel channels track subtype stream streamtype resolution latency mode ttl reuse"
    " timeout pkt_size fifo_size buffer_size overrun_nonfatal localport localrtpport rtsp_transport transport listen"
    " on events results tasks min_score keep max_mb spool_mb keepalive_s overlay"
)
_FILES = _words("ca spool")  # parameters that name a file
_FILE = re.compile(r"[^@:?#&=;]*")
_PATH = re.compile(r"(?:\.{0,2}|~)/(?!/)[^@:?#&=;]*")
_VALUE = re.compile(r"[-+]?\d[\d.,:/x]{0,11}|[a-z]{1,10}|[A-Z0-9]{4}", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d{0,8}\.?\d{0,6}(e[-+]?\d{1,2})?", re.ASCII)
_SECRET_NAME = re.compile(r"pass|pw|token|key|secret|auth|user|sig|cred|pin|code|id\b", re.IGNORECASE)
_HOST = re.compile(r"([\w.\-]*|\[[0-9A-Fa-f:.]*(%\w+)?\])(:\d{0,5})?")
# Properties of GStreamer's elements, and fields of caps, that hold no secret.
_PROPERTIES = _words(
    "width height framerate format pattern num-buffers is-live do-timestamp latency drop-on-latency protocols sync drop"
    " max-buffers max-size-buffers max-size-bytes max-size-time leaky sensor-id sensor-mode flip-method io-mode device"
    " media encoding-name payload clock-rate port address bitrate tune speed-preset key-int-max interpolation-method"
    " method rate channels layout pixel-aspect-ratio interlace-mode colorimetry chroma-site stream-format alignment"
    " buffer-size config-interval async max-lateness qos blocksize fd animation-mode motion foreground-color caps"
)
_PROPERTY = re.compile(
    r"\(?[a-z]*\)?(/dev/[\w\-/:.]{1,80}|[-+]?\d[\d.:/x]{0,15}|(?:\d{1,3}\.){3}\d{1,3}|[A-Za-z][\w\-]{0,15})"
)
_CAPS = re.compile(r"(video|audio|image|application)/[a-z0-9.\-]{1,24}(\(memory:\w{1,16}\))?")
_ASSIGN = re.compile(
    r"""([\w:.\-]+)(\s*=\s*)("(?:\\.|[^"\\])*(?:"|\Z)|'[^']*(?:'|\Z)|(?:\\.|[^\s"'\\]|"(?:\\.|[^"\\])*(?:"|\Z)|'[^']*(?:'|\Z))*)""",
    re.DOTALL,
)
_TAIL = re.compile(r"\?(?:&?\w+=[^&\s!?]*)+\Z")
_LONGEST_PART, _MOST_TURNS, _LONGEST_SEGMENT = 12, 3, 40
_WHOLE_WORD, _SHORTEST = 8, 4  # characters: shorter passwords are looked for as whole words, the shortest not at all
_MOST_KNOWN = 4096

_lock = threading.Lock()
_known: dict[str, str] = {}  # what must not be shown -> what is shown instead


class Address:
    """A source address. ``str``, ``repr`` and ``format`` give its masked text; ``reveal`` is for whoever opens it.

    Two addresses are equal if they are with their secrets; so is the text that one was made of. It cannot be pickled,
    nor encoded without a hook.

    Args:
        text: The address as it was typed; nothing about it is checked.

    Attributes:
        masked: Whether anything of it is hidden.

    Example:
        >>> print(Address("rtsp://me:p@ss@camera:554/live?token=1&channel=2"))
        rtsp://***@camera:554/live?token=***&channel=2
    """

    __slots__ = ("_shown", "_text", "masked")

    def __init__(self, text: str | Address) -> None:
        self._text: str = text._text if isinstance(text, Address) else text
        hidden: list[str] = []
        self._shown = _mask(self._text, hidden).encode("utf-8", "backslashreplace").decode()
        self.masked = bool(hidden)
        _remember(self._text, self._shown, hidden)

    def reveal(self) -> str:
        """Return the address with its secrets: only for the call that opens the device."""
        return self._text

    def mark(self, key: bytes) -> str:
        """Return six hexadecimal digits that tell addresses apart which look the same.

        A user name and a password do not count: a camera stays the same when its password is changed. It is an HMAC:
        without ``key`` not even a short secret can be found by trying.

        Args:
            key: A random key of this machine.

        Returns:
            The digits; nothing if what is shown, and a password, is all that there is.
        """
        import hashlib
        import hmac  # here, as few need them and every command starts with this module

        text = self._text
        if not re.match(r"\s*gst:", text, re.IGNORECASE):
            text = re.sub(r"(?<=://)[^?#]*@", "", text, count=1)
        hidden: list[str] = []
        _mask(text, hidden)
        if not hidden:
            return ""
        return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:6]

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"Address({self._shown!r})"

    def __format__(self, spec: str) -> str:
        return format(self._shown, spec)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self._text == other
        return self._text == other._text if isinstance(other, Address) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Address:
        return self

    def __deepcopy__(self, memo: object) -> Address:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Address cannot be pickled: it may hold a secret")


def encode_address(value: object) -> str:
    """Encode addresses with their secrets, for the control line to a child: a hook of msgspec."""
    if isinstance(value, Address):
        return value.reveal()
    raise NotImplementedError(f"{type(value).__name__} cannot be encoded")


def decode_address(kind: type, value: object) -> object:
    """Undo ``encode_address``: a hook of msgspec."""
    if kind is Address and isinstance(value, str):
        return Address(value)
    raise NotImplementedError(f"{kind.__name__} cannot be decoded")


def shown_name(name: str) -> str:
    """Return the name of a parameter as it may be shown: what does not look like a name may be a secret."""
    return name if _is_word(name) else MASK


def scrub(text: str) -> str:
    """Return ``text``, which others have written, without the secrets of the addresses that this process has seen.

    The second net: what this package writes itself holds masked addresses from the start.

    Example:
        >>> camera = Address("rtsp://me:correct-horse@camera/")
        >>> scrub("401 for rtsp://me:correct-horse@camera/: 'correct-horse' is wrong")
        "401 for rtsp://***@camera/: '***' is wrong"
    """
    with _lock:
        known = [(piece, shown) for piece, shown in _known.items() if piece in text]
    for piece, shown in sorted(known, key=lambda pair: -len(pair[0])):
        if len(piece) >= _WHOLE_WORD:
            text = text.replace(piece, shown)
        else:
            text = re.sub(rf"(?<!\w){re.escape(piece)}(?!\w)", shown.replace("\\", r"\\"), text)
    return text


def _remember(text: str, shown: str, hidden: list[str]) -> None:
    if not hidden:
        return
    pieces = {text: shown, _as_path(text): shown}
    for piece in (quoted.strip("\"'") for quoted in hidden):
        # Of a user and a password either alone is one, too. What is short may be a word that is no secret elsewhere.
        user, colon, password = piece.partition(":")
        words = {piece, user, password}
        if not _PATH.fullmatch(piece):  # the folders of a file's path stand in other paths, too
            words |= set(re.split(r"[:/?#@&=;]", piece))  # others cut it into parts
        words |= {_as_path(piece), *(unquote(word) for word in words)}
        for word in words:
            if len(word) >= _WHOLE_WORD or (colon and word == unquote(password) and len(word) >= _SHORTEST):
                pieces.update(dict.fromkeys((word, quote(word, safe=""), _base64(word)), MASK))
    with _lock:
        for piece, instead in pieces.items():
            if instead != piece and piece != MASK:
                _known.pop(piece, None)
                _known[piece] = instead
        while len(_known) > _MOST_KNOWN:
            del _known[next(iter(_known))]


def _as_path(text: str) -> str:
    """Return what ``pathlib`` makes of a text that was taken for a path."""
    return re.sub(r"/(?:\.?(?:/|\Z))+", "/", text).rstrip("/")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def _hide(text: str, hidden: list[str]) -> str:
    if text and text != MASK:
        hidden.append(text)
    return MASK if text else ""


def _mask(text: str, hidden: list[str]) -> str:
    if re.match(r"\s*gst:", text, re.IGNORECASE):
        return _mask_pipeline(text, hidden)
    scheme, mark, rest = text.partition("://")
    if not mark:
        return _mask_path(text, hidden)
    name = scheme.strip().lower()
    shown = scheme if name in _SCHEMES or re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,7}", name) else _hide(scheme, hidden)
    return f"{shown}://" + (_mask_path(rest, hidden, name) if name in _LOCAL else _mask_network(rest, name, hidden))


def _mask_path(text: str, hidden: list[str], scheme: str = "") -> str:
    """Mask what may be an address without its scheme in what should be a path."""
    path, mark, query = text.partition("?")
    before, at, after = text.rpartition("@")
    if at and ":" in before and not re.match(r"\.{0,2}/(?!/)", text):
        path, mark, query = after.partition("?")
        return f"{_hide(before, hidden)}@" + _mask_segments(path, hidden) + mark + _mask_query(query, hidden)
    # A file's name may hold "?" and "=": only what names a secret makes it an address.
    device = scheme in ("test", "csi", "v4l2")
    if "=" in query and (device or any(_SECRET_NAME.search(pair.partition("=")[0]) for pair in query.split("&"))):
        return path + mark + _mask_query(query, hidden, numbers=device)
    return text


def _mask_network(rest: str, scheme: str, hidden: list[str]) -> str:
    head = re.split(r"[?#]", rest, maxsplit=1)[0]
    tail = rest[len(head) :]
    user, at, place = head.rpartition("@")
    host, slash, path = place.partition("/")
    # Is the last '@' of a password with '/', or of a path? Known only if it cannot be a host that stands before '/'.
    doubtful = "/" in user and _HOST.fullmatch(user.partition("/")[0].rpartition("@")[2]) is not None
    if doubtful or "@" in tail or not _HOST.fullmatch(host):
        return _hide(rest, hidden)
    shown = _hide(user, hidden) + at + host + slash
    if scheme in ("rtmp", "rtmps"):  # what follows the application is the key of the stream
        application, further, key = path.partition("/")
        shown += _mask_segments(application, hidden) + further + _hide(key, hidden)
    else:
        shown += _mask_segments(path, hidden)
    query, sharp, fragment = tail.partition("#")
    return shown + query[:1] + _mask_query(query[1:], hidden) + sharp + _hide(fragment, hidden)


def _mask_segments(path: str, hidden: list[str]) -> str:
    return "/".join(part if _is_word(part) else _hide(part, hidden) for part in path.split("/"))


def _is_word(text: str) -> bool:
    """Tell whether this is a name that people give, as ``h264Preview_01_main``; a token has another look."""
    if not re.fullmatch(r"[\w.\-,~$]*", text) or len(text) > _LONGEST_SEGMENT:
        return False
    for part in re.split(r"[_.\-,~$]", text):
        turns = len(re.findall(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])", part))
        if len(part) > _LONGEST_PART or (len(part) >= 7 and (turns >= _MOST_TURNS or part.isdigit())):
            return False
    return True


def _mask_query(query: str, hidden: list[str], *, numbers: bool = False) -> str:
    return "".join(
        part if part in "&;" else _mask_pair(part, hidden, numbers=numbers) for part in re.split(r"([&;])", query)
    )


def _mask_pair(pair: str, hidden: list[str], *, numbers: bool) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return pair if pair.lower() in _PARAMS else _hide(pair, hidden)
    taken = _VALUE if name.lower() in _PARAMS else _FILE if name.lower() in _FILES else None
    safe = taken is not None and taken.fullmatch(value) is not None
    if numbers and not _SECRET_NAME.search(name):
        safe = _VALUE.fullmatch(value) is not None or _NUMBER.fullmatch(value) is not None
    return (name if _is_word(name) else _hide(name, hidden)) + equals + (value if safe else _hide(value, hidden))


def _mask_pipeline(text: str, hidden: list[str]) -> str:
    """Mask a pipeline: what is assigned to properties that are not known to be harmless, and odd words."""
    tail = _TAIL.search(text)
    body, query = (text[: tail.start()], text[tail.start() + 1 :]) if tail else (text, "")
    start = body.index(":") + 1
    shown, at = [body[:start]], start
    for found in _ASSIGN.finditer(body, start):
        shown += [_mask_words(body[at : found.start()], hidden), _mask_assignment(found, hidden)]
        at = found.end()
    shown.append(_mask_words(body[at:], hidden))
    return "".join(shown) + (f"?{_mask_query(query, hidden)}" if tail else "")


def _mask_assignment(found: re.Match[str], hidden: list[str]) -> str:
    name, equals, value = found[1], found[2], found[3]
    safe = name.lower() in _PROPERTIES
    inner = value[1:-1] if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0] else value
    if safe and _PROPERTY.fullmatch(inner) and _is_word(re.sub(r"^/dev/|[/:()+]", "_", inner)):
        return name + equals + value
    if name.lower() in ("location", "uri") and re.fullmatch(r"[a-z0-9]{2,6}://[^\s\"']+", inner):
        return name + equals + value.replace(inner, _mask(inner, hidden))
    first, comma, rest = inner.partition(",")
    if safe and (comma or name.lower() == "caps"):  # further fields of caps, or caps as one value
        head = first if _CAPS.fullmatch(first) or _PROPERTY.fullmatch(first) else _hide(first, hidden)
        fields = (field.partition("=") for field in rest.split(",")) if comma else ()
        shown = [
            f"{key}{mark}{inside}"
            if key.strip() in _PROPERTIES and _PROPERTY.fullmatch(inside.strip())
            else _hide(key + mark + inside, hidden)
            for key, mark, inside in fields
        ]
        quoted = value[0] if inner is not value and inner != value else ""
        return name + equals + quoted + ",".join([head, *shown]) + quoted
    return (name if _is_word(name) else _hide(name, hidden)) + equals + _hide(value, hidden)


def _mask_words(text: str, hidden: list[str]) -> str:
    """Mask what is neither an element's name, nor caps, nor a link between two."""
    return "".join(
        word
        if not word.strip()
        or re.fullmatch(r"!|[()]|[a-z][a-z0-9_]{0,15}|[a-z][a-z0-9_]{0,11}\.[a-z0-9_]*", word)
        or _is_word(word)
        or all(_CAPS.fullmatch(part) for part in word.split(",") if part)
        else _hide(word, hidden)
        for word in re.split(r"(\s+)", text)
    )
