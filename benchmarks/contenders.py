"""The servers that response latency is measured of: how each is started with the same rules, and called."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.speech import SpeechSettings

from .measuring_caller import FASTRTC_PATH, PATH
from .peers import FASTRTC, PIPECAT, Framework
from .servers import vocal_node
from .stand_ins import Rules

SPEECH_MS = SpeechSettings().min_speech_ms
"""What this server takes for speech, the others are told."""


PIPECAT_SETTINGS = {"LOGURU_LEVEL": "ERROR"}
FASTRTC_SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""A benchmark asks nobody on the Internet anything."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server under one set of rules.

    ``interrupted``: speech stops its answer, so it can be spoken into. ``alone``: it keeps a core busy, so that nothing
    may be measured beside it.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    path: str = PATH
    interrupted: bool = True
    alone: bool = False


def contenders(rules: Rules, frameworks: Sequence[Framework]) -> Iterator[Contender]:
    """Yield this server, bare aiortc, and whatever of the others is installed.

    Two have a second row where it tells something: Pipecat's eager transcription where there are models to hide, and
    FastRTC's other handler, which waits for up to one silence more than the rule, where there are none.
    """
    settings = {
        "VOCAL_SCRIPTED_DELAY_MS": f"{rules.transcription_ms:g}",
        "VOCAL_ECHO_TTFT_MS": f"{rules.first_token_ms:g}",
        "VOCAL_TONE_TTFB_MS": f"{rules.first_sound_ms:g}",
    }
    told = rules.arguments()
    yield Contender("**Vocal Node**", *vocal_node(rules.silence_ms, settings))
    yield Contender("bare aiortc", [sys.executable, "-m", "benchmarks.bare_aiortc", "{port}", *told])
    if PIPECAT in frameworks:
        command = [str(PIPECAT.python), "-m", "benchmarks.peers.pipecat_server", "{port}"]
        yield Contender("Pipecat", [*command, "segmented", *told], PIPECAT_SETTINGS)
        if rules.models_ms:
            yield Contender("Pipecat, eager transcription", [*command, "eager", *told], PIPECAT_SETTINGS)
    if FASTRTC in frameworks:
        command = [str(FASTRTC.python), "-m", "benchmarks.peers.fastrtc_server", "{port}"]
        yield Contender("FastRTC, AsyncStreamHandler", [*command, "stream", *told], FASTRTC_SETTINGS, FASTRTC_PATH)
        if not rules.models_ms:
            command = [*command, "pause", *told]
            yield Contender(
                "FastRTC, ReplyOnPause", command, FASTRTC_SETTINGS, FASTRTC_PATH, interrupted=False, alone=True
            )
