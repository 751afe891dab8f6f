"""Take RTP packets out of aiortc's receiver before its own jitter buffer, and keep everything else of it.

aiortc's receiver goes on checking payload types and keeping RTCP statistics; in the place of its jitter buffer it finds
a ``_Tap``, which hands the packet on and never returns a frame, so its decoder thread has nothing to do and is ended
as it starts. Nobody may wait for ``receiver.track.recv()``: it never yields.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtp import RtpPacket

from .patching import require_attributes

MAX_SOURCES = 8
"""SSRCs a receiver may have had: aiortc keeps state for each for ever, and more than 31 break its RTCP reports."""
MAX_JITTER = (1 << 31) - 1
"""What aiortc may report: its estimate can outgrow the report's 32 bits, which ends its reports and hangs ``stop``."""
_BUFFER, _QUEUE, _THREAD, _STREAMS = (
    f"_RTCRtpReceiver__{name}" for name in ("jitter_buffer", "decoder_queue", "decoder_thread", "remote_streams")
)

logger = logging.getLogger(__name__)


class _Tap:
    """Stand where aiortc's JitterBuffer stood."""

    def __init__(self, on_packet: Callable[[RtpPacket], None]) -> None:
        self._on_packet = on_packet

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """Hand the packet on. Returns "no picture lost, no frame complete"."""
        try:
            self._on_packet(packet)
        except Exception:  # aiortc closes the whole connection over anything raised here
            logger.exception("a received packet could not be used; the call goes on")
        return False, None


def tap_receiver(
    receiver: RTCRtpReceiver,
    on_start: Callable[[RTCRtpReceiveParameters], None],
    on_packet: Callable[[RtpPacket], None],
) -> None:
    """Call ``on_start`` once as the receiver starts, then ``on_packet`` for each packet of a negotiated payload type.

    To be called before the connection is up. Raises LibraryChanged if aiortc's receiver is not the one that was read.
    """
    require_attributes(receiver, _BUFFER, _QUEUE, _THREAD, _STREAMS)
    setattr(receiver, _BUFFER, _Tap(on_packet))
    _start_without_decoder(receiver, on_start)
    _keep_reports_in_bounds(receiver)


def _start_without_decoder(receiver: Any, on_start: Callable[[RTCRtpReceiveParameters], None]) -> None:
    receive = receiver.receive

    async def receive_without_decoder(parameters: RTCRtpReceiveParameters) -> None:
        started = getattr(receiver, _THREAD) is not None
        if not started:
            getattr(receiver, _QUEUE).put(None)  # the first thing the thread finds: the end
        await receive(parameters)
        if not started:
            on_start(parameters)

    receiver.receive = receive_without_decoder


def _keep_reports_in_bounds(receiver: Any) -> None:
    handle = receiver._handle_rtp_packet
    known: set[int] = set()

    async def handle_rtp_packet(packet: RtpPacket, arrival_time_ms: int) -> None:
        if packet.ssrc not in known and len(known) >= MAX_SOURCES:
            receiver.transport._rtp_router.ssrc_table.pop(packet.ssrc, None)
            return
        known.add(packet.ssrc)
        await handle(packet, arrival_time_ms=arrival_time_ms)
        if stream := getattr(receiver, _STREAMS).get(packet.ssrc):
            stream._jitter_q4 = min(stream._jitter_q4, MAX_JITTER << 4)

    receiver._handle_rtp_packet = handle_rtp_packet
