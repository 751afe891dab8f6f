"""The sockets that a process listens on, and what to say where one cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

BACKLOG = 128

LOCALHOST = ("127.0.0.1", "0.0.0.0", "::")
"""Where a server listens that answers to that name, too."""


class StartFailed(Exception):
    """Say in one line why the server could not start."""


def listen(host: str, port: int, variable: str = "VOCAL_PORT") -> list[socket.socket]:
    """Bind a socket for each address of ``host`` (one, if any port will do).

    Raises StartFailed, naming the port and the ``variable`` that sets it.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise StartFailed(f"VOCAL_HOST={host!r} is no address of this machine") from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in addresses[: None if port else 1]:
            sockets.append(_bind(socket.socket(family, kind, protocol), address))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise StartFailed(_why_not_bound(error, host, port, variable)) from None
    return sockets


def _bind(sock: socket.socket, address: object) -> socket.socket:
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _why_not_bound(error: OSError, host: str, port: int, variable: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            # the next ports are those of the services
            return f"port {port} is taken by another program: stop it, or choose another port: {variable}={port + 10}"
        case errno.EACCES:
            return f"port {port} needs more rights than this user has: choose one above 1023: {variable}=8000"
        case errno.EADDRNOTAVAIL:
            return f"VOCAL_HOST={host!r} is no address of this machine"
        case _:
            return f"cannot listen on {host} port {port}: {error.strerror or error}"


def address(host: str, sockets: Sequence[socket.socket]) -> str:
    """Return what to type into a browser on this machine, or the name others reach it by."""
    return _url("localhost" if host in LOCALHOST else host, sockets[0])


def own_address(sockets: Sequence[socket.socket]) -> str:
    """Return how another process of this machine reaches the first of them, whatever resolves names here."""
    host = str(sockets[0].getsockname()[0])
    return _url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), sockets[0])


def _url(host: str, sock: socket.socket) -> str:
    port = sock.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
