"""The espeak-ng library through ctypes: one per process, because its state is the process's.

API: espeak-ng ``speak_lib.h`` (revision 12). ctypes releases the interpreter while it works.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio import Pcm
from pipeline.errors import EngineError, EngineUnavailable

OUTPUT_SYNCHRONOUS = 2
DONT_EXIT = 0x8000
CHARS_UTF8 = 1
END_PAUSE = 0x1000
POSITION_CHARACTER = 1
PARAMETER_RATE = 1
CHUNK_MS = 60
"""The shortest the library knows."""

WORDS_PER_MINUTE = 175
SLOWEST, FASTEST = 80, 450
"""Words per minute that the library can speak."""

Emit = Callable[[Pcm], bool]

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class Library:
    """Call it from one thread at a time. Raises EngineUnavailable where it cannot be set up."""

    def __init__(self, path: str, data_path: str) -> None:
        self._lib = _bind(path)
        self.rate_hz: int = self._lib.espeak_Initialize(OUTPUT_SYNCHRONOUS, CHUNK_MS, data_path.encode(), DONT_EXIT)
        if self.rate_hz <= 0:
            raise EngineUnavailable(f"espeak-ng cannot use its data in {data_path}")
        self._identifiers = dict(self._catalogue())
        self._variants = {f.name for f in Path(data_path, "voices", "!v").glob("*")}
        self._emit: Emit | None = None
        self._callback = _Callback(self._take)  # kept: the library holds its address
        self._lib.espeak_SetSynthCallback(self._callback)

    def find(self, voice: str) -> str | None:
        """Return the identifier for a voice's name or language, with an optional ``+variant``; None if unknown."""
        base, plus, variant = voice.partition("+")
        identifier = self._identifiers.get(base.lower())
        if identifier is None or (plus and variant not in self._variants):
            return None
        return identifier + plus + variant

    def speak(self, text: str, identifier: str, words_per_minute: int, emit: Emit) -> None:
        """Emit chunks of 60 ms until the text is spoken or ``emit`` returns False. Blocks.

        With the pause that belongs behind it, as if more followed: without, a clause would run into the next one.
        """
        if self._lib.espeak_SetVoiceByName(identifier.encode()) != 0:
            raise EngineError(f"espeak-ng cannot load its voice {identifier!r}")
        self._lib.espeak_SetParameter(PARAMETER_RATE, words_per_minute, 0)
        utf8 = text.encode() + b"\0"
        self._emit = emit
        try:
            failed = self._lib.espeak_Synth(
                utf8, len(utf8), 0, POSITION_CHARACTER, 0, CHARS_UTF8 | END_PAUSE, None, None
            )
        finally:
            self._emit = None
        if failed:
            raise EngineError(f"espeak-ng failed with status {failed}")

    def _take(self, pcm: Any, samples: int, events: int | None) -> int:
        """Take what the library made; 1 makes it stop at once."""
        if not pcm or samples <= 0 or self._emit is None:
            return 0
        return 0 if self._emit(np.ctypeslib.as_array(pcm, (samples,)).copy()) else 1

    def _catalogue(self) -> Iterator[tuple[str, str]]:
        """Yield names and languages in lower case, each with an identifier; of several, the preferred comes last."""
        voices = [v.contents for v in _until_null(self._lib.espeak_ListVoices(None))]
        spoken = [(priority, language, v) for v in voices for priority, language in _languages(v.languages)]
        spoken.reverse()
        for _, language, voice in sorted(spoken, key=lambda item: -item[0]):
            yield language.lower(), voice.identifier.decode()
        for voice in voices:
            yield voice.name.decode().lower(), voice.identifier.decode()


def _bind(path: str) -> Any:
    try:
        lib = ctypes.CDLL(path)
    except OSError as error:
        raise EngineUnavailable(f"a loadable espeak-ng library: {error}") from error
    lib.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    lib.espeak_ListVoices.argtypes = [ctypes.c_void_p]
    lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    lib.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    lib.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    lib.espeak_SetSynthCallback.argtypes = [_Callback]
    lib.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return lib


def _until_null(pointers: Any) -> Iterator[Any]:
    """Yield the pointers of a null-terminated array."""
    index = 0
    while pointers[index]:
        yield pointers[index]
        index += 1


def _languages(address: int) -> Iterator[tuple[int, str]]:
    """Yield (priority, language) from espeak's list: a byte, a C string, and so on, up to a zero byte."""
    while priority := ctypes.string_at(address, 1)[0]:
        language = ctypes.string_at(address + 1)
        yield priority, language.decode()
        address += len(language) + 2


@cache
def library() -> Library:
    """Load and set up the process's espeak-ng, once. Raises EngineUnavailable naming what is missing."""
    try:
        import espeakng_loader
    except ModuleNotFoundError as error:
        raise EngineUnavailable("pip install espeakng-loader") from error
    loaded = Library(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
    loaded.speak("ready", "gmw/en-US", WORDS_PER_MINUTE, lambda _: True)  # loads its English: not in a call
    return loaded
