"""Pipecat's SmallWebRTC transport with the same rules and stand-ins, put together as its own quickstart does it.

``python -m benchmarks.peers.pipecat_server PORT HEARING RULES...``, in the environment that ``benchmarks.peers`` made.
The stand-ins are services on Pipecat's base classes, so frames go their usual way: transport, transcription, user
aggregator, language model, voice, transport. HEARING is one of two ways to hear:

- ``segmented``: voice activity detection in the aggregator tells when speech began and ended, and what was said in
  between is transcribed then, as with Whisper.
- ``eager``: the transcription finds the turns itself, and tells what it believes to be the end of one ahead of it, as
  Deepgram's Flux does: here at the first silence, as soon as it has the words. The language model begins with that,
  and what it says is held back until the turn is over; the voice begins then.

Where Pipecat can be set to answer sooner, it is: no wait for more speech after the silence (``user_speech_timeout``),
final transcripts, output in chunks of 20 ms (40 by default), no volume threshold that follows smoothly, no metrics, no
RTVI messages.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from dataclasses import fields

import numpy as np
from aiohttp import web
from loguru import logger
from pipecat.audio.vad.vad_analyzer import VADAnalyzer, VADParams
from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    STTMetadataFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService, STTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from pipecat.turns.eager_end_of_turn_mixin import EagerEndOfTurnSTTServiceMixin
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

from benchmarks.stand_ins import ANSWER, WINDOW_MS, WORDS, Hearing, Rules, answer, is_loud

IN_HZ = 16_000


class LoudnessAnalyzer(VADAnalyzer):
    """Speech is what is loud, in windows of 10 ms."""

    def num_frames_required(self) -> int:
        """Return a window's samples."""
        return int(self.sample_rate) * WINDOW_MS // 1000

    def voice_confidence(self, buffer: bytes) -> float:
        """Return 1 for a loud window, else 0."""
        return float(is_loud(np.frombuffer(buffer, np.int16)))


class ScriptedSTT(SegmentedSTTService):
    """Says the same words of every utterance, after its delay."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(ttfs_p99_latency=delay_s, settings=STTSettings(model=None, language=None))
        self._delay_s = delay_s

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:
        """Yield the transcript."""
        await asyncio.sleep(self._delay_s)
        yield TranscriptionFrame(WORDS, "", time_now_iso8601())


class EagerSTT(EagerEndOfTurnSTTServiceMixin, STTService):
    """Hears turns itself, and has the words of one its delay after the first silence."""

    def __init__(self, rules: Rules) -> None:
        settings = STTSettings(model=None, language=None)
        super().__init__(enable_eager_end_of_turn=True, ttfs_p99_latency=0.0, settings=settings)
        self._rules = rules
        self._hearing = Hearing(rules, IN_HZ)
        self._transcribing: asyncio.Task[None] | None = None

    def service_metadata_frame(self) -> STTMetadataFrame:
        """Tell that turns are found here."""
        frame = super().service_metadata_frame()
        frame.user_turn_strategies = self.recommended_user_turn_strategies(enable_interruptions=True)
        return frame

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Hear; nothing is yielded, as with services that answer when they like."""
        for became in self._hearing.push(np.frombuffer(audio, np.int16)):
            match became:
                case "speech":
                    await self.broadcast_frame(ProposedUserStartedSpeakingFrame)
                case "paused":
                    self._transcribing = self.create_task(self._transcribe())
                case "resumed":
                    await self._withdraw()
                case "over":
                    self.create_task(self._commit(self._transcribing))
        yield None

    async def _transcribe(self) -> None:
        await asyncio.sleep(self._rules.transcription_ms / 1000)
        await self._push_eager_end_of_turn(WORDS, user_id="")

    async def _withdraw(self) -> None:
        if self._transcribing is not None:
            await self.cancel_task(self._transcribing)
        await self._cancel_eager_end_of_turn()

    async def _commit(self, transcribing: asyncio.Task[None] | None) -> None:
        if transcribing is not None:
            await transcribing
        self._clear_eager_end_of_turn()
        await self.push_frame(TranscriptionFrame(WORDS, "", time_now_iso8601(), finalized=True))
        await self.broadcast_frame(ProposedUserStoppedSpeakingFrame)


class EchoLLM(LLMService):
    """Answers with the same sentence, word by word, after its delay."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(settings=LLMSettings(**{each.name: None for each in fields(LLMSettings) if each.init}))
        self._delay_s = delay_s

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer a context; hand on the rest."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        await asyncio.sleep(self._delay_s)
        for word in ANSWER.split(" "):
            await self._push_llm_text(f"{word} ")
        await self.push_frame(LLMFullResponseEndFrame())


class ToneTTS(TTSService):
    """Speaks a tone, after its delay."""

    def __init__(self, delay_s: float) -> None:
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=settings)
        self._delay_s = delay_s

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:
        """Yield sound in chunks."""
        await asyncio.sleep(self._delay_s)
        for pcm in answer(self.sample_rate):
            yield TTSAudioRawFrame(pcm.tobytes(), self.sample_rate, 1, context_id=context_id)


def segmented(rules: Rules) -> tuple[STTService, LLMUserAggregatorParams]:
    """Return what hears a caller whose turns the aggregator finds."""
    params = VADParams(
        confidence=0.5, min_volume=0.0, start_secs=rules.speech_ms / 1000, stop_secs=rules.silence_ms / 1000
    )
    strategies = UserTurnStrategies(
        start=[VADUserTurnStartStrategy()],
        stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.0)],
    )
    analyzer = LoudnessAnalyzer(params=params)
    user = LLMUserAggregatorParams(vad_analyzer=analyzer, user_turn_strategies=strategies)
    return ScriptedSTT(rules.transcription_ms / 1000), user


def eager(rules: Rules) -> tuple[STTService, LLMUserAggregatorParams]:
    """Return what hears a caller whose turns the transcription finds."""
    return EagerSTT(rules), LLMUserAggregatorParams()


def worker(connection: SmallWebRTCConnection, hearing: str, rules: Rules) -> PipelineWorker:
    """Return one call's pipeline."""
    transport = SmallWebRTCTransport(
        connection, TransportParams(audio_in_enabled=True, audio_out_enabled=True, audio_out_10ms_chunks=2)
    )
    stt, params = eager(rules) if hearing == "eager" else segmented(rules)
    user, assistant = LLMContextAggregatorPair(LLMContext(), user_params=params)
    llm, voice = EchoLLM(rules.first_token_ms / 1000), ToneTTS(rules.first_sound_ms / 1000)
    stages = [transport.input(), stt, user, llm, voice, transport.output(), assistant]
    made = PipelineWorker(Pipeline(stages), enable_rtvi=False)

    @transport.event_handler("on_client_disconnected")
    async def gone(transport: SmallWebRTCTransport, client: SmallWebRTCConnection) -> None:
        await made.cancel()

    return made


async def _run(made: PipelineWorker) -> None:
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(made)
    await runner.run()


def app(hearing: str, rules: Rules) -> web.Application:
    """Return a server with the one route."""
    calls: set[asyncio.Task[None]] = set()

    async def offer(request: web.Request) -> web.Response:
        body = await request.json()
        connection = SmallWebRTCConnection()
        await connection.initialize(sdp=body["sdp"], type=body["type"])
        calls.add(asyncio.create_task(_run(worker(connection, hearing, rules))))
        return web.json_response(connection.get_answer())

    server = web.Application()
    server.router.add_post("/api/offer", offer)
    return server


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    web.run_app(app(sys.argv[2], Rules.of(sys.argv[3:])), host="127.0.0.1", port=int(sys.argv[1]), print=None)
