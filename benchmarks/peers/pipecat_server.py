"""Pipecat's SmallWebRTC transport with the same rules and stand-ins, put together as its own quickstart does it.

``python -m benchmarks.peers.pipecat_server PORT RULES...``, in the environment that ``benchmarks.peers`` made. The
stand-ins are services on Pipecat's base classes, so frames go their usual way: transport, segmented transcription, user
aggregator with voice activity detection, language model, voice, transport. Where Pipecat can be set to answer sooner,
it is: no wait for more speech after the silence (``user_speech_timeout``), final transcripts, output in chunks of 20 ms
(40 by default), no volume threshold that follows smoothly, no metrics, no RTVI messages.
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
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

from benchmarks.stand_ins import ANSWER, WINDOW_MS, WORDS, Rules, answer, is_loud


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


def worker(connection: SmallWebRTCConnection, rules: Rules) -> PipelineWorker:
    """Return one call's pipeline."""
    transport = SmallWebRTCTransport(
        connection, TransportParams(audio_in_enabled=True, audio_out_enabled=True, audio_out_10ms_chunks=2)
    )
    params = VADParams(
        confidence=0.5, min_volume=0.0, start_secs=rules.speech_ms / 1000, stop_secs=rules.silence_ms / 1000
    )
    user, assistant = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=LoudnessAnalyzer(params=params),
            user_turn_strategies=UserTurnStrategies(
                start=[VADUserTurnStartStrategy()],
                stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.0)],
            ),
        ),
    )
    stt, llm = ScriptedSTT(rules.transcription_ms / 1000), EchoLLM(rules.first_token_ms / 1000)
    voice = ToneTTS(rules.first_sound_ms / 1000)
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


def app(rules: Rules) -> web.Application:
    """Return a server with the one route."""
    calls: set[asyncio.Task[None]] = set()

    async def offer(request: web.Request) -> web.Response:
        body = await request.json()
        connection = SmallWebRTCConnection()
        await connection.initialize(sdp=body["sdp"], type=body["type"])
        calls.add(asyncio.create_task(_run(worker(connection, rules))))
        return web.json_response(connection.get_answer())

    server = web.Application()
    server.router.add_post("/api/offer", offer)
    return server


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    web.run_app(app(Rules.of(sys.argv[2:])), host="127.0.0.1", port=int(sys.argv[1]), print=None)
