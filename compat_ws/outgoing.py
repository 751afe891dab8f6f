"""What a client is sent, in the order in which it happened: a session's events and its voice, in the dialect's words.

Both are translated at once, into a queue that one task alone writes from, and no further frame is taken from the
playout before that queue is sent. So while a client reads too slowly the playout stands still instead of piling up
stale sound, and an interruption takes back all but what has left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from pipeline.audio import AudioFrame
from pipeline.events import Event, ReplyFinished
from pipeline.lateness import Lateness
from pipeline.playout import Playout

from .client_socket import too_slow
from .dialect import Dialect, Message

MAX_WAITING = 4096
"""Messages that wait to be sent; at most one of them is sound. A fast language model's words, told one by one while the
client may take nothing for some seconds."""


class Outgoing:
    """``dropped`` counts messages that did not fit any more: the call ends then, or the client would miss an end."""

    def __init__(self, dialect: Dialect) -> None:
        # A frame leaves when its first sample may; its last one is a ptime further ahead.
        self.playout = Playout(dialect.output, dialect.lead_ms - dialect.output.ptime_ms)
        self.lateness = Lateness()
        self.dropped = 0
        self._dialect = dialect
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(MAX_WAITING)
        self._late: deque[Event] = deque()

    def put(self, *messages: Message | None) -> None:
        """Send these next; None is nothing. Synchronous."""
        for message in messages:
            if message is None:
                continue
            if self._waiting.full():
                self.dropped += 1
            else:
                self._waiting.put_nowait(message)

    def tell(self, event: Event) -> None:
        """Translate an event: a listener for ``Session.subscribe``.

        A playout tells the end of a reply while it takes its last frame, which is in nobody's hands yet: that event,
        and whatever follows from it at once, waits until the taker has come to its next await.
        """
        if self._late:
            self._late.append(event)
        elif isinstance(event, ReplyFinished):
            self._late.append(event)
            asyncio.get_running_loop().call_soon(self._tell_late)
        else:
            self.put(*self._dialect.event(event))

    def _tell_late(self) -> None:
        while self._late:
            self.put(*self._dialect.event(self._late.popleft()))

    async def take_frames(self) -> None:
        """Take frames as they fall due, until canceled."""
        clock = asyncio.get_running_loop().time
        while True:
            frame = await self.playout.next_frame()
            self.lateness.note(frame, clock())
            self._say(frame)
            await self._waiting.join()

    def _say(self, frame: AudioFrame) -> None:
        if not frame.silent:
            self.put(self._dialect.audio(frame))

    async def write(self, send: Callable[[Message], Awaitable[None]]) -> None:
        """Send what waits, until canceled. Raises Ending, or what ``send`` raises."""
        while not self.dropped:
            await send(await self._waiting.get())
            self._waiting.task_done()
        raise too_slow()

    def rest(self) -> Iterator[Message]:
        """Take what was not sent."""
        while not self._waiting.empty():
            yield self._waiting.get_nowait()
