"""A process that ends when its parent does, however that came to its end, and serves on sockets its parent has bound.

Parent and child hold the two ends of a socket pair, the lifeline. The kernel closes the parent's end even where the
parent was killed, and signals the child (SIGIO) there and then: no thread and no event loop is needed to notice, so
it works from the first line of ``main`` on, and while a model is loading. Over the same lifeline the child says when
it is ready. The parent's end is never inheritable, or a sibling that has it would keep the child alive.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

LIFELINE = "VOCAL_LIFELINE_FD"
SOCKETS = "VOCAL_SOCKET_FDS"
READY = b"ready"

ORPHAN_MAY_TAKE_S = 5
"""How long an orphan may take to end as if by Ctrl-C; then the kernel ends it, whatever it is doing."""


def bequest(lifeline: socket.socket, sockets: Sequence[socket.socket]) -> Mapping[str, str]:
    """Return the variables that tell a child which of its file descriptors these are."""
    return {LIFELINE: str(lifeline.fileno()), SOCKETS: ",".join(str(sock.fileno()) for sock in sockets)}


class Parent:
    """The process that started this one. ``sockets`` listen already."""

    def __init__(self, lifeline: socket.socket, sockets: Sequence[socket.socket]) -> None:
        self.sockets = sockets
        self._lifeline = lifeline

    def tell_ready(self) -> None:
        """Say that requests are answered from now on."""
        with suppress(OSError):  # the parent is gone, which another signal tells
            self._lifeline.send(READY)

    def follow(self) -> None:
        """From now on end like by Ctrl-C when the parent is gone."""
        import fcntl

        signal.signal(signal.SIGIO, self._lifeline_changed)
        fcntl.fcntl(self._lifeline, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self._lifeline, fcntl.F_GETFL)
        fcntl.fcntl(self._lifeline, fcntl.F_SETFL, flags | os.O_NONBLOCK | os.O_ASYNC)
        self._lifeline_changed(signal.SIGIO, None)  # it may have gone before anybody listened

    def _lifeline_changed(self, number: int, frame: FrameType | None) -> None:
        if self._is_there():
            return
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ORPHAN_MAY_TAKE_S)
        signal.raise_signal(signal.SIGINT)

    def _is_there(self) -> bool:
        try:
            return self._lifeline.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


def inherit() -> Parent | None:
    """Return the parent that left us a lifeline, and follow it; None for a process started by anyone else.

    Call it first thing in ``main``. The variables are taken out of the environment: they are nobody else's.
    """
    lifeline = os.environ.pop(LIFELINE, "")
    sockets = os.environ.pop(SOCKETS, "")
    if not lifeline:
        return None
    parent = Parent(_open(lifeline), [_open(number) for number in sockets.split(",") if number])
    parent.follow()
    return parent


def _open(number: str) -> socket.socket:
    sock = socket.socket(fileno=int(number))
    sock.set_inheritable(False)
    return sock
