"""Voice samples: some seconds of speech that a voice is cloned from, kept as files named by their content."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import wave
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from .audio import VOICE_RATE_HZ, Pcm
from .errors import EngineError, Overloaded
from .sample_check import SampleCheck
from .sound_file import SoundLimits, decode
from .threads import EngineThreads, run_in_thread

LEAST_S: Final = 3.0
MOST_S: Final = 30.0
MAX_SAMPLES: Final = 2_048
"""Of 1.4 MB at most: 3 GB."""

_NAME = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class Sample:
    """``sha256`` is that of the file it is kept as: 24 kHz, mono, 16-bit WAV."""

    sha256: str
    duration_s: float


class VoiceSamples:
    """The samples in one folder, which other processes may share. Files are complete from the moment they have a name.

    Every sample is somebody's or temporary: `sweep` removes those that nobody keeps and nobody has added lately.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = EngineThreads("voices")
        self._check = SampleCheck()

    async def add(
        self, source: bytes, *, param: str, least_s: float = LEAST_S, most_s: float = MOST_S, trim: bool
    ) -> Sample:
        """Decode a sound file, and keep it if a voice can be cloned from it; longer ones are cut if ``trim``.

        It is kept as `SampleCheck.prepare` returns it. Adding what is there already is fine, and keeps it from being
        swept. Raises ProtocolError (``param``): 413 for too long, 422 for what `SampleCheck` refuses, and what
        `sound_file.decode` raises.
        Overloaded where there is no room, EngineError where it cannot be written. Canceling is safe.
        """
        limits = SoundLimits() if trim else replace(SoundLimits(), duration_s=most_s)
        pcm = await decode(source, VOICE_RATE_HZ, limits, trim_s=most_s if trim else None, param=param)
        return await run_in_thread(self._threads, partial(self._keep, pcm, least_s, param))

    def path(self, sha256: str) -> Path:
        """Return a sample's file. Raises EngineError where there is none. Blocks for one look at the folder."""
        path = self._folder / f"{sha256}.wav"
        if not _NAME.fullmatch(sha256) or not path.is_file():
            raise EngineError(f"there is no voice sample {sha256[:64]!r}")
        return path

    async def read(self, sha256: str) -> bytes:
        """Return a sample's file. Raises EngineError where there is none."""
        return await run_in_thread(self._threads, lambda: self._read(sha256))

    async def retain(self, sha256: str) -> bool:
        """Keep a sample from being swept, as if it were added now; tell whether it is there. Raises EngineError."""
        return await run_in_thread(self._threads, lambda: self._retain(sha256))

    async def remove(self, sha256: str) -> None:
        """Forget a sample, if it is there. Raises EngineError where it cannot be removed."""
        if _NAME.fullmatch(sha256):
            await run_in_thread(self._threads, partial(_remove, self._folder / f"{sha256}.wav"))

    async def sweep(self, keep: Collection[str], older_than_s: float) -> int:
        """Remove samples not in ``keep`` that were last added over ``older_than_s`` ago; return how many.

        A call may use a temporary sample for as long as it lasts: no call may last longer than ``older_than_s``.
        """
        return await run_in_thread(self._threads, partial(self._sweep, frozenset(keep), older_than_s))

    def close(self) -> None:
        """End the thread. Blocks until what it writes is written."""
        self._threads.close()

    # --- in the thread

    def _keep(self, pcm: Pcm, least_s: float, param: str) -> Sample:
        kept = self._check.prepare(pcm, least_s, param)
        file = _wav(kept)
        sample = Sample(hashlib.sha256(file).hexdigest(), len(kept) / VOICE_RATE_HZ)
        path = self._folder / f"{sample.sha256}.wav"
        with _answering_for("kept"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._retain(sample.sha256):
                return sample
            if len(os.listdir(self._folder)) >= MAX_SAMPLES:
                raise Overloaded("there is no room for another voice sample: try again later", retry_after_s=600)
            _write(path, file)
        return sample

    def _retain(self, sha256: str) -> bool:
        with _answering_for("kept"):
            try:
                os.utime(self._folder / f"{sha256}.wav")
            except FileNotFoundError:
                return False
        return True

    def _read(self, sha256: str) -> bytes:
        path = self.path(sha256)
        with _answering_for("read"):
            return path.read_bytes()

    def _sweep(self, keep: frozenset[str], older_than_s: float) -> int:
        before_s = datetime.now(UTC).timestamp() - older_than_s
        removed = 0
        with _answering_for("swept"):
            for path in filter(_is_ours, self._folder.glob("*")):
                with suppress(FileNotFoundError):  # another process was faster
                    if path.stem not in keep and path.stat().st_mtime < before_s:
                        path.unlink()
                        removed += 1
        return removed


def _is_ours(path: Path) -> bool:
    return path.name.startswith(_UNFINISHED) or (path.suffix == ".wav" and _NAME.fullmatch(path.stem) is not None)


def _write(path: Path, file: bytes) -> None:
    """Give it its name when it is whole and on the disk."""
    descriptor, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(file)
            new.flush()
            os.fsync(new.fileno())
        os.replace(unfinished, path)
    except OSError:
        os.unlink(unfinished)
        raise


def _remove(path: Path) -> None:
    with _answering_for("removed"):
        path.unlink(missing_ok=True)


@contextmanager
def _answering_for(what: str) -> Iterator[None]:
    """Turn what the file system says into an error of ours, without the path."""
    try:
        yield
    except OSError as error:
        raise EngineError(f"voice samples cannot be {what}: {error.strerror}") from error


def _wav(pcm: Pcm) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(VOICE_RATE_HZ)
        out.writeframes(pcm.astype("<i2").tobytes())
    return file.getvalue()
