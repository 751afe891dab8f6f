"""Remedies for SCTP: what one caller's data channel may cost everybody."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from struct import unpack_from
from typing import Any

from aiortc import rtcsctptransport as sctp
from aiortc.rtcsctptransport import DataChunk, RTCSctpTransport, SackChunk

from .patching import replace, require_attributes

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 65_536
"""What we advertise as max-message-size (RFC 8841 section 6.1), and what a sender may leave unfinished."""

RECEIVE_WINDOW_BYTES = 262_144
MAX_AHEAD = 256
"""Transmission sequence numbers a DATA chunk may be ahead of the last one in order."""

MAX_PENDING_CHUNKS = 512
MAX_STREAMS = 64


def parameter_shorter_than_its_header() -> None:
    """Reject a parameter whose length is below 4 or beyond the chunk (RFC 9260 section 3.2.1) before it is parsed.

    Without it the loop makes no progress: the event loop stands still, for every call, while memory grows.
    """

    def make(original: Callable[[bytes], list[tuple[int, bytes]]]) -> Callable[[bytes], list[tuple[int, bytes]]]:
        def decode_params(body: bytes) -> list[tuple[int, bytes]]:
            pos = 0
            while pos <= len(body) - 4:
                length = unpack_from("!H", body, pos + 2)[0]
                if length < 4 or pos + length > len(body):
                    raise ValueError(f"SCTP parameter has an invalid length of {length} bytes")
                pos += length + sctp.padl(length)
            return original(body)

        return decode_params

    replace(sctp, "decode_params", "body", make)


def packet_that_raises() -> None:
    """Drop an SCTP packet or message that makes the library raise.

    Without it a chunk cut short, text that is not UTF-8, or a channel opened twice ends the task that receives, and
    with it the voice.
    """

    def make(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def handle_data(self: RTCSctpTransport, data: bytes) -> None:
            try:
                await original(self, data)
            except ConnectionError:
                raise
            except Exception as error:  # whatever it raises, one packet must not end a call
                log.debug("SCTP packet dropped: %r", error)

        return handle_data

    replace(RTCSctpTransport, "_handle_data", "self data", make)


def acknowledgement_of_what_was_never_sent() -> None:
    """Keep only gap blocks that are in order and within what is outstanding (RFC 9260 section 3.3.4).

    Without it one packet full of overlapping blocks costs seconds of the event loop.
    """

    def make(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def receive_sack_chunk(self: RTCSctpTransport, chunk: SackChunk) -> None:
            outstanding = len(self._sent_queue)
            gaps: list[tuple[int, int]] = []
            for start, end in chunk.gaps:
                if (gaps[-1][1] if gaps else 0) < start <= end <= outstanding:
                    gaps.append((start, end))
            chunk.gaps = gaps
            await original(self, chunk)

        return receive_sack_chunk

    replace(RTCSctpTransport, "_receive_sack_chunk", "self chunk", make)


def message_without_end() -> None:
    """Abort the association of a sender that leaves too much unfinished or out of order; the voice goes on.

    Without it the window we advertise is not enforced: fragments that never end, one-byte chunks and sequence numbers
    far ahead take memory without limit and time that grows with its square. A chunk too far ahead is dropped, as one is
    that finds the window full (RFC 9260 section 6.2); it will be sent again.
    """
    require_attributes(sctp, "LOCAL_MAX_MESSAGE_SIZE")
    sctp.LOCAL_MAX_MESSAGE_SIZE = MAX_MESSAGE_BYTES
    replace(RTCSctpTransport, "_receive_data_chunk", "self chunk", _bounded)
    replace(RTCSctpTransport, "__init__", "self transport port", _small_window)


def _small_window(original: Callable[..., None]) -> Callable[..., None]:
    def init(self: RTCSctpTransport, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._advertised_rwnd = RECEIVE_WINDOW_BYTES

    return init


def _bounded(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def receive_data_chunk(self: RTCSctpTransport, chunk: DataChunk) -> None:
        if self._last_received_tsn is None:
            return
        ahead = (chunk.tsn - self._last_received_tsn) % sctp.SCTP_TSN_MODULO
        if MAX_AHEAD < ahead < sctp.SCTP_TSN_MODULO // 2:
            self._sack_needed = True
            return
        await original(self, chunk)
        if _exceeds_bounds(self, chunk.stream_id):
            log.info("data channel aborted: the caller sends a message of more than %d bytes", MAX_MESSAGE_BYTES)
            await self._abort()
            self._set_state(self.State.CLOSED)
            self._inbound_streams.clear()

    return receive_data_chunk


def _exceeds_bounds(transport: RTCSctpTransport, stream_id: int) -> bool:
    stream = transport._inbound_streams.get(stream_id)
    chunks = stream.reassembly if stream else []
    return (
        len(transport._inbound_streams) > MAX_STREAMS
        or transport._advertised_rwnd < 0
        or len(chunks) > MAX_PENDING_CHUNKS
        or sum(len(chunk.user_data) for chunk in chunks) > RECEIVE_WINDOW_BYTES
    )


def timer_that_outlives_its_transport() -> None:
    """Drop a chunk that a timer or a late message wants to send over a transport that is closed.

    Without it the ConnectionError surfaces in a task that nobody awaits.
    """

    def make(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def send_chunk(self: RTCSctpTransport, chunk: sctp.Chunk) -> None:
            try:
                await original(self, chunk)
            except ConnectionError:
                log.debug("SCTP chunk not sent: the transport is closed")

        return send_chunk

    replace(RTCSctpTransport, "_send_chunk", "self chunk", make)


REMEDIES = (
    parameter_shorter_than_its_header,
    packet_that_raises,
    acknowledgement_of_what_was_never_sent,
    message_without_end,
    timer_that_outlives_its_transport,
)
