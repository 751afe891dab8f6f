"""The files of a model from the hub, each going on where an earlier try ended, in this process or another.

The hub's own library keeps nothing of a file that was not finished, and 8 GB over a slow line never are. So what is big
enough to have a SHA-256 on the hub is brought here, checked, and put where that library looks for it. The layout:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path

from pipeline.errors import EngineUnavailable

log = logging.getLogger(__name__)

STALL_S = 10.0
"""How long a server that has begun may send nothing."""

LOCK_S = 0.5

_STOPPED: ContextVar[Callable[[], bool]] = ContextVar("stopped", default=lambda: False)


@contextmanager
def stoppable(stopped: Callable[[], bool]) -> Iterator[None]:
    """End downloads in this context at their next piece once ``stopped`` says so."""
    token = _STOPPED.set(stopped)
    try:
        yield
    finally:
        _STOPPED.reset(token)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is named by the SHA-256 of its content."""

    url: str
    size_bytes: int
    sha256: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def there(self, blobs: Path) -> int:
        """Return how many of its bytes are in the folder already."""
        for path in (blobs / self.sha256, _unfinished(blobs, self)):
            if path.is_file():
                return min(path.stat().st_size, self.size_bytes)
        return 0


class Part:
    """What has come so far, on disk and as a digest."""

    def __init__(self, stream: BufferedRandom) -> None:
        stream.seek(0)
        self._stream = stream
        self._digest = hashlib.file_digest(stream, "sha256")
        self.size_bytes = stream.tell()

    def add(self, piece: bytes) -> None:
        """Keep one more piece."""
        self._stream.write(piece)
        self._digest.update(piece)
        self.size_bytes += len(piece)

    def begin_again(self) -> None:
        """Forget all of it."""
        self._stream.seek(0)
        self._stream.truncate()
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def sha256(self) -> str:
        """Return the digest of all of it."""
        return self._digest.hexdigest()


def bring(file: RemoteFile, blobs: Path, lock: Path, told: Callable[[int], None]) -> None:
    """Bring the file into a folder, under its SHA-256; ``told`` hears how many bytes are there. Blocks.

    A connection that is lost is made again as long as each brings something. Raises EngineUnavailable for a damaged
    file, one that another process is bringing, and once stopped (`stoppable`); else what the hub's library raises.
    """
    if not (blobs / file.sha256).exists():
        blobs.mkdir(parents=True, exist_ok=True)
        with _alone(lock):
            with _unfinished(blobs, file).open("ab+") as stream:
                _complete(Part(stream), file, told)
            _unfinished(blobs, file).replace(blobs / file.sha256)
    told(file.size_bytes)


def _unfinished(blobs: Path, file: RemoteFile) -> Path:
    return blobs / f"{file.sha256}.incomplete"


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes from the same file; the library takes this lock, too."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(lock, timeout=LOCK_S))
        except TimeoutError:
            raise EngineUnavailable("its download to end, which another process is at just now") from None
        yield


def _complete(part: Part, file: RemoteFile, told: Callable[[int], None]) -> None:
    if part.size_bytes > file.size_bytes:
        part.begin_again()
    while part.size_bytes < file.size_bytes:
        before_bytes = part.size_bytes
        try:
            _ask(part, file, told)
        except EngineUnavailable:
            raise
        except Exception as error:
            if part.size_bytes <= before_bytes:
                raise
            log.info("the connection was lost (%s); going on at byte %d", type(error).__name__, part.size_bytes)
        else:
            if part.size_bytes <= before_bytes:
                raise ConnectionError("nothing more came")
    if part.size_bytes > file.size_bytes or part.sha256() != file.sha256:
        part.begin_again()
        raise EngineUnavailable("another try: what came does not match its checksum, and was thrown away")


def _ask(part: Part, file: RemoteFile, told: Callable[[int], None]) -> None:
    """Ask once for what is still lacking."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    headers = {**file.headers, "Accept-Encoding": "identity"}
    if part.size_bytes:
        headers["Range"] = f"bytes={part.size_bytes}-"
    with get_session().stream("GET", file.url, headers=headers, timeout=STALL_S) as response:
        hf_raise_for_status(response)
        if part.size_bytes and response.status_code != 206:
            part.begin_again()
        for piece in response.iter_raw():
            if _STOPPED.get()():
                raise EngineUnavailable("the rest of its download, which was stopped and goes on where it was")
            part.add(piece)
            told(part.size_bytes)
