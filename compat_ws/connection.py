"""One WebSocket <-> one Session, for every dialect: from the configuration to the moment when nothing of it is left.

Three tasks: one reads, and what it reads is said to the session; one takes the agent's voice as it falls due; one
writes (`outgoing`). A call ends when the client leaves or hangs up, when the server says so, and when a bound is hit;
the client is told why, unless it has left. A message that cannot be read ends nothing once the call has begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, assert_never

from aiohttp import WSCloseCode

from pipeline.errors import ProtocolError
from pipeline.session import Session
from pipeline.tasks import cancel_and_wait
from signaling.rate_limit import TokenBucket

from .backend import Sessions
from .client_socket import ClientSocket, Ending, ending_of
from .dialect import Answer, Audio, Configured, Dialect, HangUp, Input, Message, PressEnded, PressStarted, Typed
from .hearing import Hearing
from .outgoing import Outgoing

log = logging.getLogger(__name__)

CONFIGURE_S = 10.0
MESSAGES_BURST, MESSAGES_PER_S = 100.0, 20.0
"""Of messages other than sound: each of them is answered, or interrupts the agent."""
IN_TURN = 16
"""Messages read before others have their turn, however short."""

GOING_AWAY = "server closed"
"""The reason for which the server ends all of its calls."""


class Connection:
    """Implements ``backend.Transport``."""

    def __init__(self, client: ClientSocket, dialect: Dialect) -> None:
        loop = asyncio.get_running_loop()
        self._client = client
        self._dialect = dialect
        self._outgoing = Outgoing(dialect)
        self._allowance = TokenBucket(MESSAGES_BURST, MESSAGES_PER_S, loop.time())
        self._ending: asyncio.Future[Ending] = loop.create_future()
        self._gone = asyncio.Event()

    async def serve(self, sessions: Sessions, remote: str) -> None:
        """Carry one call, to its end. Canceling it says that the client has left."""
        try:
            await self._call(sessions, remote)
            await self._say_goodbye(self._ending.result())
        finally:
            self._gone.set()

    async def refuse(self, error: ProtocolError) -> None:
        """Tell why there will be no call."""
        await self._say_goodbye(ending_of(error))

    async def _call(self, sessions: Sessions, remote: str) -> None:
        try:
            with sessions.place():
                request = await self._configuration()
                async with sessions.open(request, self._outgoing.playout, self, remote) as session:
                    await self._carry(session)
        except Exception as error:
            self._end(ending_of(error))

    async def _configuration(self) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(CONFIGURE_S):
                while True:
                    for said in self._dialect.receive(await self._client.receive()):
                        match said:
                            case Configured(request):
                                return request
                            case Answer(message):
                                self._spend()
                                await self._client.send(message)
                            case HangUp():
                                raise Ending("hung up")
        except TimeoutError:
            error = f"no configuration came within {CONFIGURE_S:g} s"
            raise Ending("not configured", WSCloseCode.POLICY_VIOLATION, error) from None

    async def _carry(self, session: Session) -> None:
        session.subscribe(self._outgoing.tell)
        self._outgoing.put(*self._dialect.ready())
        session.greet()
        tasks = [
            asyncio.create_task(self._read(session), name="websocket read"),
            asyncio.create_task(self._outgoing.take_frames(), name="websocket frames"),
            asyncio.create_task(self._outgoing.write(self._client.send), name="websocket write"),
        ]
        any_of: list[asyncio.Future[Any]] = [self._ending, *tasks]
        try:
            await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*tasks)
            failed = (task.exception() for task in tasks if not task.cancelled())
            self._end(next((ending_of(error) for error in failed if error is not None), Ending("caller left")))

    # --- what the client says

    async def _read(self, session: Session) -> None:
        hearing = Hearing(session.push_audio)
        for n in count(1):
            for said in self._understand(await self._next(hearing)):
                await self._act(said, session, hearing)
            if n % IN_TURN == 0:
                await asyncio.sleep(0)

    async def _next(self, hearing: Hearing) -> Message:
        while True:
            try:
                async with asyncio.timeout_at(hearing.deadline_s):
                    return await self._client.receive()
            except TimeoutError:
                await hearing.wait_no_longer()

    def _understand(self, message: Message) -> Sequence[Input]:
        try:
            return self._dialect.receive(message)
        except ProtocolError as error:
            self._spend()
            self._outgoing.put(self._dialect.error(str(error)))
            return []

    async def _act(self, said: Input, session: Session, hearing: Hearing) -> None:
        if isinstance(said, Audio):
            await hearing.sound(said.pcm)
            return
        self._spend()
        match said:
            case Typed(text):
                session.push_text(text)
            case PressStarted():
                session.start_speech()
            case PressEnded():
                session.end_speech()
            case Answer(message):
                self._outgoing.put(message)
            case HangUp():
                raise Ending("hung up")
            case Configured():
                self._outgoing.put(self._dialect.error("the call is configured already"))
            case _:
                assert_never(said)

    def _spend(self) -> None:
        if self._allowance.take(asyncio.get_running_loop().time()) > 0:
            error = f"over {MESSAGES_PER_S:g} messages a second came that were no sound"
            raise Ending("flooded", WSCloseCode.POLICY_VIOLATION, error)

    # --- the end

    @property
    def reason(self) -> str:
        """See ``Transport.reason``."""
        return self._ending.result().reason if self._ending.done() else "failed"

    def end(self, reason: str) -> None:
        """See ``Transport.end``."""
        if reason == GOING_AWAY:
            self._end(Ending(reason, WSCloseCode.GOING_AWAY, "this server is about to end; call again in a moment"))
        else:
            self._end(Ending(reason))

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    async def close(self, reason: str) -> None:
        """See ``Transport.close``. Canceling the wait does not cancel the closing."""
        self.end(reason)
        await self._gone.wait()

    async def _say_goodbye(self, ending: Ending) -> None:
        log.debug("a WebSocket ends: %s", ending.reason)
        await self._client.close(ending.code, self._last_words(ending))

    def _last_words(self, ending: Ending) -> Iterator[Message]:
        yield from self._outgoing.rest()
        error = self._dialect.error(ending.error) if ending.error is not None else None
        if error is not None:
            yield error

    # --- what is counted

    def counts(self) -> Mapping[str, int]:
        """See ``Transport.counts``."""
        clock = self._outgoing.playout.clock
        return {
            "late_frames": clock.late_frames,
            "skipped_frames": clock.skipped_frames,
            "dropped_messages": self._outgoing.dropped,
        }

    def watch_lateness(self, observe: Callable[[float], None]) -> None:
        """See ``Transport.watch_lateness``."""
        self._outgoing.lateness.observe = observe
