"""What XTTS makes of a voice sample, computed once for each sample and model: in memory, and in a folder of files.

Files are safetensors, which hold numbers and nothing that runs. One that cannot be read is computed again.
"""

from __future__ import annotations

import logging
import os
import tempfile
import wave
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import EngineError
from pipeline.voices import VoiceSamples

from ._xtts_model import Checkpoint, Speaker

log = logging.getLogger(__name__)

IN_MEMORY: Final = 128
"""Voices, 130 kB each."""
ON_DISK: Final = 4_096
"""Voices, too: half a GB."""
MODEL_RATE_HZ: Final = 22_050
UNFINISHED: Final = ".unfinished-"


class Latents:
    """The voices that samples have, for one checkpoint. Blocks; not for two threads at once.

    A sample that was deleted takes its voice with it: at once for whoever asks, from the disk at the next start or with
    the next new voice. ``computed`` counts how often the model was asked.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path, samples: VoiceSamples) -> None:
        self.computed = 0
        self._checkpoint = checkpoint
        self._folder = folder
        self._samples = samples
        self._model = checkpoint.fingerprint()
        self._memory: OrderedDict[str, Speaker] = OrderedDict()
        with _unless_the_disk_says_no():
            self._tidy()

    def of(self, sha256: str) -> Speaker:
        """Return the voice of a sample. Raises EngineError where there is none, or none that can be read."""
        sample = self._samples.path(sha256)
        known = self._memory.pop(sha256, None) or self._read(sha256)
        self._memory[sha256] = speaker = known or self._compute(sha256, sample)
        if len(self._memory) > IN_MEMORY:
            self._memory.popitem(last=False)
        return speaker

    def _file(self, sha256: str) -> Path:
        return self._folder / f"{sha256}-{self._model[:32]}.safetensors"

    def _read(self, sha256: str) -> Speaker | None:
        path = self._file(sha256)
        try:
            kept = load(path.read_bytes())
            return self._speaker(kept["latents"], kept["embedding"])
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            log.warning("the latents of a voice cannot be read and are computed again: %s: %s", path.name, error)
            return None

    def _speaker(self, latents: Tensor, embedding: Tensor) -> Speaker:
        dim = int(self._checkpoint.config.model_args.gpt_n_model_channels)
        if latents.shape[::2] != (1, dim) or embedding.ndim != 3:
            raise ValueError(f"latents of shape {tuple(latents.shape)}")
        return Speaker(latents.to(self._checkpoint.device), embedding.to(self._checkpoint.device))

    def _compute(self, sha256: str, sample: Path) -> Speaker:
        self.computed += 1
        with torch.inference_mode():
            speaker = compute(self._checkpoint, sample)
        file = save({"latents": speaker.latents.cpu().contiguous(), "embedding": speaker.embedding.cpu().contiguous()})
        with _unless_the_disk_says_no():
            self._write(self._file(sha256), file)
        return speaker

    def _write(self, path: Path, file: bytes) -> None:
        """Give it its name when it is whole."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tidy()
        descriptor, unfinished = tempfile.mkstemp(prefix=UNFINISHED, dir=self._folder)
        with os.fdopen(descriptor, "wb") as new:
            new.write(file)
        os.replace(unfinished, path)

    def _tidy(self) -> None:
        """Remove what belongs to no sample any more, and the oldest if there is no room for another."""
        files = sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        kept = [file for file in files if self._has_sample(file.name.partition("-")[0])]
        for file in {*files} - {*kept[-(ON_DISK - 1) :]}:
            file.unlink(missing_ok=True)

    def _has_sample(self, sha256: str) -> bool:
        try:
            return self._samples.path(sha256).is_file()
        except EngineError:
            return False


@contextmanager
def _unless_the_disk_says_no() -> Iterator[None]:
    """Go on without: a voice that is not kept is there all the same, until the next start."""
    try:
        yield
    except OSError as error:
        log.warning("the latents of voices cannot be kept in VOCAL_DATA_DIR: %s", error.strerror)


def compute(checkpoint: Checkpoint, sample: Path) -> Speaker:
    """Ask the model, as its own ``get_conditioning_latents`` does. Raises EngineError for a sample it cannot use."""
    config, xtts = checkpoint.config, checkpoint.xtts
    audio = _read_wav(sample)[:, : MODEL_RATE_HZ * config.max_ref_len].to(checkpoint.device)
    if config.sound_norm_refs:
        audio = audio / audio.abs().max() * 0.75
    embedding = xtts.get_speaker_embedding(audio, MODEL_RATE_HZ)
    latents = xtts.get_gpt_cond_latents(
        audio, MODEL_RATE_HZ, length=config.gpt_cond_len, chunk_length=config.gpt_cond_chunk_len
    )
    return Speaker(latents.float(), embedding.float())


def _read_wav(path: Path) -> Tensor:
    """Read 16-bit WAV, as voice samples are kept, at the model's rate: ``[1, samples]``, -1..1."""
    from torchaudio.functional import resample

    try:
        with wave.open(str(path)) as file:
            pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
            rate_hz, width = file.getframerate(), file.getsampwidth()
    except (OSError, EOFError, wave.Error, ValueError) as error:
        raise EngineError(f"the voice sample cannot be read: {error}") from error
    if width != 2 or not len(pcm):
        raise EngineError("the voice sample is no WAV of 16-bit samples")
    audio = torch.from_numpy(pcm.astype(np.float32).mean(1) / 32768.0)[None]
    resampled: Tensor = resample(audio, rate_hz, MODEL_RATE_HZ)
    return resampled.clip(-1, 1)
