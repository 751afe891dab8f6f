"""How Whisper is to run, by settings; `pipeline.stt.faster_whisper` says what each one means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines import Settings, number
from pipeline.errors import EngineUnavailable

WINDOW_MAX_S = 30
"""What Whisper was trained on, and the most it can hear at once."""

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True, slots=True)
class WhisperSettings:
    """One way to run: ``model`` on ``device``.

    ``batch`` utterances are decoded at once; ``threads`` are the CPU's, for each of the ``lanes`` that decode beside
    each other. ``window_s`` is the least that the encoder is given, the rest of it being silence.
    ``partial_ms`` of new audio are worth another look while the caller speaks, 0 for none.
    """

    model: str
    device: str
    compute_type: str
    beam_size: int
    batch: int
    threads: int
    window_s: int
    partial_ms: int
    prompt: str

    @property
    def lanes(self) -> int:
        """One for final words, and one for partial ones if there are any."""
        return 2 if self.partial_ms else 1


def ways(settings: Settings) -> list[WhisperSettings]:
    """Return the ways to run here, the best first. Raises EngineUnavailable for a setting that cannot be."""
    wanted = settings.get("VOCAL_WHISPER_DEVICE", "").strip().lower() or "auto"
    if wanted != "auto":
        if _DEVICE.fullmatch(wanted) is None:
            raise EngineUnavailable(f"VOCAL_WHISPER_DEVICE that is auto, cpu, cuda or cuda:N, not {wanted!r:.100}")
        return [_way(wanted, settings)]
    return [_way(device, settings) for device in _devices(settings)]


def _devices(settings: Settings) -> Iterator[str]:
    if settings.get("CUDA_VISIBLE_DEVICES", "0").strip() not in ("", "-1") and _has_gpu():
        yield "cuda"
    yield "cpu"


def _has_gpu() -> bool:
    """Look for NVIDIA's device files; CTranslate2 itself would take a tenth of a second to import."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def _way(device: str, settings: Settings) -> WhisperSettings:
    cuda = device != "cpu"
    cores = os.cpu_count() or 1
    return WhisperSettings(
        model=settings.get("VOCAL_WHISPER_MODEL", "").strip() or ("small.en" if cuda else "base.en"),
        device=device,
        compute_type=settings.get("VOCAL_WHISPER_COMPUTE_TYPE", "").strip() or ("float16" if cuda else "int8"),
        beam_size=_whole(settings, "VOCAL_WHISPER_BEAM_SIZE", 1),
        batch=_whole(settings, "VOCAL_WHISPER_BATCH", 16 if cuda else 4),
        threads=_whole(settings, "VOCAL_WHISPER_THREADS", max(1, min(4, cores // 2))),
        window_s=min(WINDOW_MAX_S, _whole(settings, "VOCAL_WHISPER_WINDOW_S", WINDOW_MAX_S if cuda else 10)),
        partial_ms=int(number(settings, "VOCAL_WHISPER_PARTIAL_MS", 500)),
        prompt=settings.get("VOCAL_WHISPER_PROMPT", "").strip(),
    )


def _whole(settings: Settings, name: str, default: int) -> int:
    return int(number(settings, name, default, least=1))
