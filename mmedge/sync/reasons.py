"""Why an input is absent, in words."""

from __future__ import annotations


def explain(why: str, by_ns: int, ended: str | None) -> str:
    """Return why an input is absent.

    Args:
        why: As the native synchroniser names it.
        by_ns: By how much, where that matters.
        ended: Why the source has ended, if it said so.

    Example:
        >>> explain("old", 250_000_000, None)
        '250 ms old'
    """
    if why in ("old", "behind", "ahead"):
        return f"{by_ns / 1e6:.0f} ms {why}"
    if why == "frozen":
        return f"STALE, the picture has not changed for {by_ns / 1e9:.1f} s"
    if why == "ended":
        return ended or "ended"
    return _WORDS.get(why, why)


_WORDS = {
    "nothing yet": "nothing has come yet",
    "no sound": "no sound of that time",
    "overwritten": "overwritten before it was wanted",
}
