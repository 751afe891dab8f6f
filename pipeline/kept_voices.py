"""The voices in the database: each has a sample here, and what was made of it at vendors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from . import tables
from .cloning import VoiceMaker
from .database import Database
from .errors import EngineError, Overloaded, ProtocolError
from .rows import ids_of, require_room, row_of, rows_of, slug
from .tasks import cancel_and_wait
from .vendor_voices import Making
from .voices import VoiceSamples

log = logging.getLogger(__name__)

MAX_VOICES = 1_000
NAMED_IN_ERRORS = 20
UNDO_S = 10.0
"""How long the end of the process waits for vendors to delete what nobody waited for."""

FindMaker = Callable[[str], Awaitable[VoiceMaker]]
"""Return what makes voices for a speech engine. Raises EngineError where it cannot be had."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice to clone: ``sha256`` names its sample, ``engines`` its id at vendors by the speech engine that has it."""

    id: str
    name: str
    duration_s: float
    sha256: str
    engines: Mapping[str, str] = field(default_factory=dict)


async def no_maker(engine: str) -> VoiceMaker:
    """Find none."""
    raise EngineError(f"nothing here can reach {engine}")


class KeptVoices:
    """Rows, samples and vendors kept in step: what is written last is the row, and what goes last is the row."""

    def __init__(self, database: Database, samples: VoiceSamples) -> None:
        self._database = database
        self._samples = samples
        self._undoing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait a while for vendors to delete what nobody waited for."""
        if self._undoing:
            await asyncio.wait(self._undoing, timeout=UNDO_S)
        await cancel_and_wait(*self._undoing)

    async def all(self) -> Sequence[Voice]:
        """Return all of them, by name."""
        async with self._database.reading() as connection:
            found = [Voice(**row) for row in await rows_of(connection, tables.voices)]
        return sorted(found, key=lambda voice: (voice.name.casefold(), voice.id))

    async def one(self, voice_id: str) -> Voice:
        """Return one. Raises ProtocolError 404."""
        async with self._database.reading() as connection:
            return await _required(connection, voice_id)

    async def at_engine(self, engine: str, voice_id: str | None, sha256: str | None) -> str | None:
        """Return what a speech engine calls the voice with this id, or else with this sample; None if it has none."""
        wanted = tables.voices.c.id == voice_id if sha256 is None else tables.voices.c.sha256 == sha256
        async with self._database.reading() as connection:
            found = await connection.scalars(select(tables.voices.c.engines).where(wanted).order_by(tables.voices.c.id))
            return next((engines[engine] for engines in found if engine in engines), None)

    async def add(self, name: str, source: bytes, makers: Mapping[str, VoiceMaker], language: str) -> Voice:
        """See `Catalogue.add_voice`."""
        sample = await self._samples.add(source, param="file", trim=False)
        voice = Voice(
            f"{slug(name, 'voice')}-{sample.sha256[:8]}", name, round(sample.duration_s, 3), sample.sha256, {}
        )
        if not makers:
            await self._insert(voice)
            return voice
        making = Making(makers)
        try:
            async with self._database.reading() as connection:  # a vendor is not asked for what is refused afterwards
                await _require_new(connection, voice)
            made = await making.make(name, await self._samples.read(voice.sha256), language)
            voice = replace(voice, engines=made)
            await self._insert(voice)
        except asyncio.CancelledError:  # nobody is left to wait for it
            self._undo(making, voice)
            raise
        except Exception:
            await asyncio.shield(self._undo(making, voice))
            raise
        return voice

    async def remove(self, voice_id: str, maker: FindMaker) -> None:
        """See `Catalogue.remove_voice`."""
        async with self._database.reading() as connection:
            voice = await _required(connection, voice_id)
            await _require_unused(connection, voice_id)
        for engine, at_vendor in voice.engines.items():
            try:
                await (await maker(engine)).forget(at_vendor)
            except (EngineError, ProtocolError) as error:
                raise EngineError(
                    f"the voice {voice_id!r} is kept, for it cannot be deleted at {engine}: {error}"
                ) from error
            await self._forgotten(voice_id, engine)
        async with self._database.writing() as connection:
            await _required(connection, voice_id)
            await _require_unused(connection, voice_id)
            await connection.execute(tables.voices.delete().where(tables.voices.c.id == voice_id))
            await self._drop_sample(connection, voice.sha256)

    async def samples(self) -> Sequence[str]:
        """Return the samples that are voices', by SHA-256."""
        async with self._database.reading() as connection:
            return (await connection.scalars(select(tables.voices.c.sha256))).all()

    async def _insert(self, voice: Voice) -> None:
        async with self._database.writing() as connection:
            await _require_new(connection, voice)
            if not await self._samples.retain(voice.sha256):
                raise Overloaded("the last voice with this very sample was just removed: send it again")
            await connection.execute(tables.voices.insert().values(asdict(voice)))

    def _undo(self, making: Making, voice: Voice) -> asyncio.Task[None]:
        """Begin to leave nothing of a voice."""
        undoing = asyncio.create_task(self._leave_nothing(making, voice), name="undo a voice")
        self._undoing.add(undoing)
        undoing.add_done_callback(self._undoing.discard)
        return undoing

    async def _leave_nothing(self, making: Making, voice: Voice) -> None:
        try:
            await making.undo()
        finally:
            await making.abandon()
        try:
            async with self._database.writing() as connection:
                row = await row_of(connection, tables.voices, voice.id)
                if row is not None and voice.engines and row["engines"] == voice.engines:  # canceled as it was written
                    await connection.execute(tables.voices.delete().where(tables.voices.c.id == voice.id))
                await self._drop_sample(connection, voice.sha256)
        except EngineError as error:
            log.warning("of a voice that was not made something stays here: %s", error)

    async def _forgotten(self, voice_id: str, engine: str) -> None:
        """Note what a vendor has deleted, so that nobody is spoken to with it if the rest fails."""
        async with self._database.writing() as connection:
            voice = await _required(connection, voice_id)
            left = {name: at_vendor for name, at_vendor in voice.engines.items() if name != engine}
            changed = tables.voices.update().where(tables.voices.c.id == voice_id)
            await connection.execute(changed.values(engines=left))

    async def _drop_sample(self, connection: AsyncConnection, sha256: str) -> None:
        same = select(func.count()).where(tables.voices.c.sha256 == sha256)
        if await connection.scalar(same) == 0:
            await self._samples.remove(sha256)


async def _required(connection: AsyncConnection, voice_id: str) -> Voice:
    row = await row_of(connection, tables.voices, voice_id)
    if row is None:
        raise ProtocolError(f"there is no voice {voice_id!r:.66}: GET /voices lists them", param="id", status=404)
    return Voice(**row)


async def _require_new(connection: AsyncConnection, voice: Voice) -> None:
    taken = set(await ids_of(connection, tables.voices))
    require_room(len(taken), MAX_VOICES, "voices")
    if voice.id in taken:
        raise ProtocolError(
            f"there is a voice {voice.id!r} already, with this name and this sample", param="file", status=409
        )


async def _require_unused(connection: AsyncConnection, voice_id: str) -> None:
    users = select(tables.agents.c.id).where(tables.agents.c.voice == voice_id).order_by(tables.agents.c.id)
    ids = (await connection.scalars(users.limit(NAMED_IN_ERRORS))).all()
    if ids:
        raise ProtocolError(
            f"agents speak with the voice {voice_id!r}: {', '.join(ids)}; give them another first",
            param="id",
            status=409,
        )
