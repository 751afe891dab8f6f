"""The agents and voices this server knows, in a database; several processes may use one at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from . import tables
from .agents import BUILT_IN, Agent, read_request
from .cloning import VoiceMaker
from .database import Database
from .errors import ProtocolError
from .fetch import fetch as fetch_public
from .kept_voices import FindMaker, KeptVoices, Voice, no_maker
from .rows import ids_of, require_room, row_of, rows_of, slug
from .sample_urls import Fetch, SampleUrls
from .voices import VoiceSamples

MAX_AGENTS = 1_000
NAMED_IN_ERRORS = 20
NOWHERE: Final[Mapping[str, VoiceMaker]] = MappingProxyType({})

HOW_TO_CREATE = (
    'create one: POST /agents {"id", "name", "system_prompt", "greeting", "language", "speed", "voice"}, '
    "of which only name is required"
)


class Catalogue:
    """Use as ``async with``: the tables are brought up to date on the way in. Raises EngineError where that fails."""

    def __init__(self, database_url: str, samples: VoiceSamples, fetch: Fetch = fetch_public) -> None:
        """See `pipeline.database` for the URLs. ``fetch`` gets what is at a ``voiceSampleUrl``.

        ``samples`` is the catalogue's from now on, and closed with it.
        """
        self._database = Database(database_url)
        self._samples = samples
        self._voices = KeptVoices(self._database, samples)
        self._urls = SampleUrls(samples, fetch, self._voices.samples)

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._voices.aclose()
            await self._database.__aexit__()
        finally:
            self._samples.close()

    # --- who answers

    async def find(self, request: Mapping[str, Any]) -> Agent:
        """Return the agent a client asked for, with the voice it speaks with.

        ``agent`` is the id of one, or the fields of one; without it the request itself has the fields of the raw-PCM
        configuration. ``agentId``, else ``configId``, that is known here names that agent; the other fields replace
        its own, but for the name. Where none is known they make a temporary agent out of the default one.

        Raises ProtocolError, whose ``param`` is the field at fault: 404 for an ``agent`` that nobody is, 400 for
        fields out of bounds and for a ``voiceSampleUrl`` that holds no sample. Raises Overloaded while too many samples
        are being fetched, EngineError where the database fails.
        """
        agent_id, fields = read_request(request)
        async with self._database.reading() as connection:
            known = await _first_known(connection, fields.ids() if agent_id is None else [agent_id])
            if known is None and agent_id is not None:
                raise await _nobody(connection, agent_id, "agent")
            agent = fields.alone(await _default(connection)) if known is None else fields.over(known)
            agent = await _with_voice(connection, agent)
        if fields.sample_url is None:
            return agent
        return replace(agent, sample=await self._urls.sample(fields.sample_url))

    async def personality(self, id_or_name: str | None) -> Agent:
        """Return the agent with this id, else name (any case; of several the first by id), with its voice.

        None and blank are the default agent. Raises ProtocolError (404, param ``personality``) that tells who is known
        and how to create another.
        """
        async with self._database.reading() as connection:
            if id_or_name is None or not id_or_name.strip():
                return await _with_voice(connection, await _default(connection))
            found = await _first_known(connection, [id_or_name]) or await _by_name(connection, id_or_name)
            if found is None:
                raise await _nobody(connection, id_or_name, "personality")
            return await _with_voice(connection, found)

    # --- agents, as they are kept: ``voice`` may be a voice's id

    async def agents(self) -> Sequence[Agent]:
        """Return all of them, by name."""
        async with self._database.reading() as connection:
            found = [Agent(**row) for row in await rows_of(connection, tables.agents)]
        return sorted(found, key=lambda agent: (agent.name.casefold(), agent.id))

    async def agent(self, agent_id: str) -> Agent:
        """Return one. Raises ProtocolError 404."""
        async with self._database.reading() as connection:
            return await _required(connection, agent_id)

    async def add(self, agent: Agent) -> Agent:
        """Keep a new agent and return it; an empty id becomes one made from the name.

        Of what an agent is, the columns of ``pipeline.tables.agents`` are kept. Raises ProtocolError 409 where the id
        is taken, or where there are too many.
        """
        async with self._database.writing() as connection:
            taken = set(await ids_of(connection, tables.agents))
            require_room(len(taken), MAX_AGENTS, "agents")
            if agent.id in taken:
                raise ProtocolError(
                    f"there is an agent {agent.id!r} already: PUT /agents/{agent.id} replaces it",
                    param="id",
                    status=409,
                )
            added = agent if agent.id else replace(agent, id=_free_id(agent.name, taken))
            await connection.execute(tables.agents.insert().values(_kept(added)))
        return added

    async def replace(self, agent: Agent) -> None:
        """Put ``agent`` in the place of the one with its id. Raises ProtocolError 404."""
        async with self._database.writing() as connection:
            await _required(connection, agent.id)
            await connection.execute(tables.agents.update().where(tables.agents.c.id == agent.id).values(_kept(agent)))

    async def remove(self, agent_id: str) -> None:
        """Forget an agent. Calls that it is in go on. Raises ProtocolError 404."""
        async with self._database.writing() as connection:
            await _required(connection, agent_id)
            await connection.execute(tables.agents.delete().where(tables.agents.c.id == agent_id))

    # --- voices

    async def voices(self) -> Sequence[Voice]:
        """Return all of them, by name."""
        return await self._voices.all()

    async def voice(self, voice_id: str) -> Voice:
        """Return one. Raises ProtocolError 404."""
        return await self._voices.one(voice_id)

    async def voice_sample(self, voice_id: str) -> bytes:
        """Return a voice's sample as a WAV file. Raises ProtocolError 404."""
        return await self._samples.read((await self.voice(voice_id)).sha256)

    async def voice_at(self, engine: str, *, voice_id: str | None = None, sha256: str | None = None) -> str | None:
        """Return what a speech engine calls the voice with this id, or this sample; None if it was made none there."""
        return await self._voices.at_engine(engine, voice_id, sha256)

    async def add_voice(
        self, name: str, source: bytes, makers: Mapping[str, VoiceMaker] = NOWHERE, language: str = "en"
    ) -> Voice:
        """Keep a new voice, made at all ``makers`` (by speech engine) too: ``source`` is a file of 3 to 30 s of speech.

        Raises ProtocolError: 409 for the same name with the same sample, or too many; what `VoiceSamples.add` raises
        (param ``file``). Overloaded where the sample is removed meanwhile, with the last voice that had it. EngineError
        where a vendor refuses. Then nothing is kept, here or at a vendor; canceling comes to the same.
        """
        return await self._voices.add(name, source, makers, language)

    async def remove_voice(self, voice_id: str, maker: FindMaker = no_maker) -> None:
        """Forget a voice, at vendors first, and its sample if no other voice has it.

        Raises ProtocolError: 404, or 409 while an agent speaks with it. EngineError where a vendor does not delete it;
        the voice is kept, to be removed again.
        """
        await self._voices.remove(voice_id, maker)


def _kept(agent: Agent) -> dict[str, Any]:
    return {column.name: getattr(agent, column.name) for column in tables.agents.columns}


async def _first_known(connection: AsyncConnection, ids: Sequence[str]) -> Agent | None:
    for agent_id in ids:
        row = await row_of(connection, tables.agents, agent_id)
        if row is not None:
            return Agent(**row)
    return None


async def _default(connection: AsyncConnection) -> Agent:
    return await _first_known(connection, [BUILT_IN.id]) or BUILT_IN


async def _by_name(connection: AsyncConnection, name: str) -> Agent | None:
    """Compare here: databases fold the case of ASCII alone, or of what their locale says."""
    columns = select(tables.agents.c.id, tables.agents.c.name).order_by(tables.agents.c.id)
    wanted = name.strip().casefold()
    found = (row.id for row in await connection.execute(columns) if row.name.casefold() == wanted)
    return await _first_known(connection, list(found)[:1])


async def _with_voice(connection: AsyncConnection, agent: Agent) -> Agent:
    """Return ``agent`` with the sample of its voice, if that is one of ours and not a speech engine's own."""
    row = None if agent.voice is None else await row_of(connection, tables.voices, agent.voice)
    if row is None:
        return agent
    return replace(agent, voice=None, sample=row["sha256"], voices={**row["engines"], **agent.voices})


async def _required(connection: AsyncConnection, agent_id: str) -> Agent:
    found = await _first_known(connection, [agent_id])
    if found is None:
        raise await _nobody(connection, agent_id, "id")
    return found


async def _nobody(connection: AsyncConnection, wanted: str, param: str) -> ProtocolError:
    ids = await ids_of(connection, tables.agents)
    more = f" and {len(ids) - NAMED_IN_ERRORS} more" if len(ids) > NAMED_IN_ERRORS else ""
    known = ", ".join(ids[:NAMED_IN_ERRORS]) or "none"
    return ProtocolError(
        f"there is no agent {wanted!r:.66}; known: {known}{more}; {HOW_TO_CREATE}", param=param, status=404
    )


def _free_id(name: str, taken: set[str]) -> str:
    plain = slug(name, "agent")
    numbered = (plain if n == 1 else f"{plain}-{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in numbered if candidate not in taken)
