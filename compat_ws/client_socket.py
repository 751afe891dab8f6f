"""One client's WebSocket with every limit that a conversation needs, and each end told before it comes.

What the library leaves open, and what is done about it:

- It buffers 256 KiB of messages, the kernel megabytes: seconds of stale sound for a client that reads slowly. Here
  each send waits until all but ``BUFFER_BYTES`` has left this process, and about as much waits in the kernel.
- It closes without a word where a message is too long or no WebSocket frame, and resets the connection while the client
  still sends, so that not even the close code arrives. Here ``close`` is ours alone to call: it says why, and goes on
  reading (and discarding) for ``LINGER_S``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Self

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, web

from pipeline.errors import EngineError, Overloaded, ProtocolError

from .dialect import Message

log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 1_048_576
BUFFER_BYTES = 8_192
"""About 60 ms of sound as base64 of float32."""
SEND_S = 5.0
"""How long a client may take nothing."""
PING_S = 15.0
"""A client is asked for a sign of life after so long a silence; it has half of that to answer."""
GOODBYE_S = 2.0
LINGER_S = 1.0

BROKEN: dict[int, str] = {
    WSCloseCode.MESSAGE_TOO_BIG: f"a message must be shorter than {MESSAGE_MAX_BYTES} bytes",
    WSCloseCode.INVALID_TEXT: "a text message must be UTF-8",
}
"""What is wrong by the code the library would close with."""

CODES = {403: WSCloseCode.POLICY_VIOLATION, 413: WSCloseCode.MESSAGE_TOO_BIG}
"""Close codes by the HTTP status of a ProtocolError; 1002 for any other."""


class Ending(Exception):
    """The connection ends. ``reason`` is one of few, for statistics; ``error`` is what the client is told first."""

    def __init__(self, reason: str, code: int = WSCloseCode.OK, error: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.error = error


def too_slow() -> Ending:
    """Return the end of a client that does not read."""
    return Ending("too slow", WSCloseCode.POLICY_VIOLATION, "too little of what was sent is being read")


def ending_of(error: BaseException) -> Ending:
    """Return how a connection ends by what was raised. What nobody foresaw is logged here."""
    match error:
        case Ending():
            return error
        case ProtocolError():
            return Ending("refused", CODES.get(error.status, WSCloseCode.PROTOCOL_ERROR), str(error))
        case Overloaded():
            return Ending("overloaded", WSCloseCode.TRY_AGAIN_LATER, str(error))
        case EngineError():
            return Ending("failed", WSCloseCode.INTERNAL_ERROR, str(error))
    log.error("a WebSocket failed", exc_info=error)
    return Ending("failed", WSCloseCode.INTERNAL_ERROR, "internal error: the server's log says more")


class ClientSocket:
    """``send`` and ``receive`` raise Ending, and may be canceled. One task may receive, one send."""

    def __init__(self, response: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        """Use ``accept``."""
        self.response = response
        self._transport = transport
        self._close = response.close
        setattr(response, "close", _stay_open)  # noqa: B010 - mypy refuses to assign to a method
        self._broken = False

    @classmethod
    async def accept(cls, request: web.Request) -> Self:
        """Answer the upgrade. Raises HTTPBadRequest where that is not what the client asks for."""
        response = web.WebSocketResponse(
            heartbeat=PING_S, compress=False, max_msg_size=MESSAGE_MAX_BYTES, writer_limit=0, timeout=GOODBYE_S
        )
        await response.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client left during the upgrade")
        _bound_buffers(request.transport)
        return cls(response, request.transport)

    async def receive(self) -> Message:
        """Return the next message."""
        try:
            message = await self.response.receive()
        except ConnectionError:  # of a pong
            raise Ending("caller left") from None
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            received: Message = message.data
            return received
        raise self._ending(message)

    def _ending(self, message: WSMessage) -> Ending:
        error = message.data if message.type is WSMsgType.ERROR else self.response.exception()
        if isinstance(error, WebSocketError):
            self._broken = True
            return Ending("protocol error", error.code, BROKEN.get(error.code, "that is no WebSocket frame"))
        if isinstance(error, TimeoutError):
            return Ending("vanished")
        return Ending("caller left")

    async def send(self, message: Message) -> None:
        """Return when at most ``BUFFER_BYTES`` wait in this process. Canceling leaves the message sent."""
        try:
            async with asyncio.timeout(SEND_S):
                await self._write(message)
        except TimeoutError:
            raise too_slow() from None
        except ConnectionError:
            raise Ending("caller left") from None

    async def _write(self, message: Message) -> None:
        if isinstance(message, str):
            await self.response.send_str(message)
        else:
            await self.response.send_bytes(message)

    async def close(self, code: int, last: Iterable[Message] = ()) -> None:
        """Send the last messages and close, within ``GOODBYE_S``: what cannot be sent by then is not."""
        try:
            async with asyncio.timeout(GOODBYE_S):
                for message in last:
                    await self._write(message)
                if self._broken:
                    await asyncio.sleep(LINGER_S)
                await self._close(code=code)
        except (TimeoutError, ConnectionError) as error:
            log.debug("a client did not hear the end of it: %s", type(error).__name__)
            self._transport.abort()
        else:  # what is still buffered may leave
            asyncio.get_running_loop().call_later(GOODBYE_S, self._transport.abort)


async def _stay_open(*, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
    """Take the place of the library's ``close``, which it calls itself."""
    return False


def _bound_buffers(transport: asyncio.Transport) -> None:
    transport.set_write_buffer_limits(high=BUFFER_BYTES)
    unsent_limit = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    connection = transport.get_extra_info("socket")
    if unsent_limit is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, unsent_limit, BUFFER_BYTES)
