"""A call's data channel: the session's events out as RTVI, the client's messages in as what they ask for."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import assert_never

from aiortc import RTCDataChannel

from pipeline.events import Event
from pipeline.session import Session
from signaling.rate_limit import TokenBucket
from signaling.rtvi import Rtvi
from signaling.rtvi_messages import ClientMessage, ClientReady, Disconnect, Input, SendText, TrackStatus

log = logging.getLogger(__name__)

MAX_WAITING = 256
"""Messages kept until the channel opens; of more the oldest are dropped."""

MAX_BUFFERED_BYTES = 1_048_576
"""What may wait for a client that does not acknowledge; beyond it messages are dropped."""

IN_FLIGHT_MS = 150
"""What was said before the talk button was released and comes after the message about it: a microphone's buffers, the
encoder and the network's jitter hold sound back, and nothing holds back messages."""

MESSAGES_PER_S = 50.0
BURST = 200.0


class RtviLink:
    """Speak RTVI over whatever data channel the client opened last.

    ``session`` None is a mere listener, whose words concern nobody. ``dropped`` counts messages of either direction
    that ran into a bound. Nothing here raises on what a client sends.
    """

    def __init__(self, session: Session | None, hang_up: Callable[[], None]) -> None:
        self.dropped = 0
        self._rtvi = Rtvi()
        self._session = session
        self._hang_up = hang_up
        self._channel: RTCDataChannel | None = None
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._allowance = TokenBucket(BURST, MESSAGES_PER_S, asyncio.get_running_loop().time())

    def attach(self, channel: RTCDataChannel) -> None:
        """Use ``channel`` from now on, beginning with what has been waiting for one."""
        self._channel = channel
        channel.on("message", self._receive)
        while self._waiting:
            self._send(self._waiting.popleft())

    def tell(self, event: Event) -> None:
        """Translate one event and send it."""
        for message in self._rtvi.send(event):
            self._send(message)

    def _send(self, message: str) -> None:
        if self._channel is None:
            self.dropped += len(self._waiting) == MAX_WAITING
            self._waiting.append(message)
        elif self._channel.readyState != "open" or self._channel.bufferedAmount > MAX_BUFFERED_BYTES:
            self.dropped += 1
        else:
            self._channel.send(message)

    def _receive(self, message: str | bytes) -> None:
        if self._allowance.take(asyncio.get_running_loop().time()) > 0:
            self.dropped += 1
            return
        try:
            received = self._rtvi.receive(message)
            for reply in received.replies:
                self._send(reply)
            if received.input is not None:
                self._act(received.input)
        except Exception:
            log.exception("a data-channel message could not be carried out; the call goes on")

    def _act(self, asked: Input) -> None:
        match asked:
            case SendText():
                self._take_text(asked)
            case ClientMessage(name="speech_start" | "speech_end"):
                self._press(asked)
            case ClientMessage():
                self._send(self._rtvi.reject(asked, f"there is nothing here that answers {asked.name!r}"))
            case Disconnect():
                self._hang_up()
            case ClientReady() | TrackStatus():
                pass
            case _:
                assert_never(asked)

    def _press(self, asked: ClientMessage) -> None:
        if self._session is None:
            self._send(self._rtvi.reject(asked, "this connection only listens: press where you speak"))
            return
        if asked.name == "speech_start":
            self._session.start_speech()
        else:
            self._session.end_speech(in_flight_ms=IN_FLIGHT_MS)
        self._send(self._rtvi.respond(asked, None))

    def _take_text(self, words: SendText) -> None:
        if self._session is None:
            self._send(self._rtvi.error("this connection only listens: type where you speak"))
        elif words.run_immediately:
            self._session.push_text(words.text)
        else:
            self._session.history.commit_user(words.text)
