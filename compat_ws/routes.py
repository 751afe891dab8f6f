"""The routes of the services: speech-to-text, a language model, text-to-speech, each in our shape and in OpenAI's."""

from __future__ import annotations

import time
from collections.abc import Collection

from aiohttp import web

from pipeline.engines import Kind

from . import openai_api, openai_chat, speech
from .chat import ChatService
from .conversations import Conversations
from .speech_contexts import SpeechContexts
from .transcribe import TranscribeService
from .uploads import WholeForms


def add_service_routes(app: web.Application, kinds: Collection[Kind]) -> None:
    """Add the routes of these kinds' services. The application's keys are those of `backend`.

    Run the application with ``handler_cancellation=True``: that is how an engine learns that its client has gone.
    """
    app.router.add_get("/v1/models", openai_api.models_of(kinds))
    if "stt" in kinds:
        _add_transcription(app.router)
    if "llm" in kinds:
        _add_chat(app.router)
    if "tts" in kinds:
        _add_speech(app)


def _add_transcription(router: web.UrlDispatcher) -> None:
    forms = WholeForms()
    router.add_post("/transcribe", TranscribeService(forms).answer)
    router.add_post("/v1/audio/transcriptions", openai_api.TranscriptionService(forms).answer)


def _add_chat(router: web.UrlDispatcher) -> None:
    chat = ChatService(Conversations(time.monotonic))
    router.add_post("/chat", chat.answer)
    router.add_post("/chat/groq", chat.answer_with_groq)
    router.add_post("/v1/chat/completions", openai_chat.complete)


def _add_speech(app: web.Application) -> None:
    contexts = SpeechContexts()
    app.on_shutdown.append(lambda _: contexts.aclose())  # while there are engines
    app.router.add_post("/tts", speech.answer)
    app.router.add_get("/tts/stream", speech.streaming_from(None))
    app.router.add_get("/tts/stream/cartesia", speech.streaming_from("cartesia"))
    app.router.add_get("/tts/stream/elevenlabs", speech.streaming_from("elevenlabs"))
    app.router.add_post("/v1/audio/speech", openai_api.SpeechService(contexts).answer)
