"""Voice samples."""

from __future__ import annotations

from pathlib import Path


class VoiceSamples:
    """Samples by the SHA-256 of their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
