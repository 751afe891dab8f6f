"""How late outgoing frames leave, whichever transport takes them."""

from __future__ import annotations

from collections.abc import Callable

from .audio import AudioFrame


class Lateness:
    """Measure how late frames leave, against the earliest frame seen on the same timeline.

    Silent frames keep one timeline. Each talkspurt has its own: it may start up to one ptime, or the playout's lead,
    ahead of it. ``observe`` is called with every frame's lateness in ms.
    """

    def __init__(self, observe: Callable[[float], None] = lambda _: None) -> None:
        self.observe = observe
        self._origin_s = {True: float("inf"), False: float("inf")}
        self._was_silent = True

    def note(self, frame: AudioFrame, now_s: float) -> None:
        """Note that ``frame`` left at ``now_s``."""
        offset_s = now_s - frame.pts / frame.rate_hz
        if self._was_silent and not frame.silent:
            self._origin_s[False] = offset_s
        self._was_silent = frame.silent
        self._origin_s[frame.silent] = min(self._origin_s[frame.silent], offset_s)
        self.observe((offset_s - self._origin_s[frame.silent]) * 1000)
