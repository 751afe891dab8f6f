"""PocketSphinx's decoder through ctypes.

The package's own Python binding holds the interpreter while it decodes: the event loop stood still for up to 70 ms a
frame and 900 ms at an utterance's end. ctypes lets go of it for the length of each call, on the same library file.
API: ``pocketsphinx.h`` and ``fe.h``, version 5.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, Pcm
from pipeline.errors import EngineError, EngineUnavailable

from ._cepstrum import PRIOR, Cepstra, CepstralMean

MISSING = "pip install pocketsphinx"

BLOCK_SAMPLES = SPEECH_RATE_HZ // 10

NOISE_FRAMES, NOISE_FRAMES_PER_LETTER = 30, 15
"""A lone word longer than this, in frames of 10 ms, is noise: two seconds of white noise decode as one "see"."""


class Decoder:
    """One utterance at a time, called from one thread at a time. Takes 0.4 s and 90 MB to build."""

    def __init__(self, package: Path) -> None:
        self._lib = _bind(package)
        self._unheard: list[Pcm] = []
        self._mean = CepstralMean()
        model = package / "model" / "en-us"
        settings = {
            "hmm": str(model / "en-us"),
            "lm": str(model / "en-us.lm.bin"),
            "dict": str(model / "cmudict-en-us.dict"),
            # Both run over the whole utterance at its end: 0.2 to 1.7 s, for no fewer wrong words.
            "fwdflat": False,
            "bestpath": False,
            # Less than half the work of the default 30000, for no more wrong words.
            "maxhmmpf": 3000,
        }
        self._config = self._lib.ps_config_parse_json(None, json.dumps(settings).encode())
        self._decoder = self._lib.ps_init(self._config)
        if not self._decoder:
            raise EngineUnavailable(f"pocketsphinx cannot load its model in {model}")
        self._front_end = self._lib.fe_init_auto_r(self._config)

    def __del__(self) -> None:
        if getattr(self, "_front_end", None):
            self._lib.fe_free(self._front_end)
            self._lib.ps_free(self._decoder)
            self._lib.ps_config_free(self._config)

    def begin(self) -> None:
        """Begin an utterance; nothing of the one before remains, not even its speaker's cepstral mean."""
        self._unheard.clear()
        self._mean = CepstralMean()
        self._check(self._lib.ps_start_utt(self._decoder))

    def hear(self, pcm: Pcm) -> bool:
        """Take the next samples; decode them by blocks of 100 ms. True where that was done, which blocks for 20 ms."""
        self._unheard.append(pcm)
        if sum(map(len, self._unheard)) < BLOCK_SAMPLES:
            return False
        block = np.concatenate(self._unheard)
        self._lib.ps_set_cmn(self._decoder, self._mean.push(self._cepstra(block)).encode())
        self._decode()
        return True

    def _decode(self) -> None:
        raw = b"".join(pcm.tobytes() for pcm in self._unheard)
        self._unheard.clear()
        if raw and self._lib.ps_process_raw(self._decoder, raw, len(raw) // 2, 0, 0) < 0:
            raise EngineError("pocketsphinx failed to decode")

    def _cepstra(self, block: Pcm) -> Cepstra:
        rows, count = ctypes.POINTER(ctypes.POINTER(ctypes.c_float))(), ctypes.c_int()
        self._lib.fe_start_utt(self._front_end)
        self._check(
            self._lib.fe_process_utt(
                self._front_end, block.tobytes(), len(block), ctypes.byref(rows), ctypes.byref(count)
            )
        )
        try:
            return np.ctypeslib.as_array(rows[0], (count.value, len(PRIOR))).copy()
        finally:
            self._lib.fe_free_2d(rows)

    def words(self) -> str:
        """Return the words so far. Costs 0.1 ms."""
        return (self._lib.ps_get_hyp(self._decoder, None) or b"").decode()

    def pause(self) -> str:
        """Decode what is left, at most 100 ms; return the words up to here, none for noise. The utterance may go on."""
        self._decode()
        return self._said()

    def end(self) -> str:
        """The same, and the utterance is over."""
        self._decode()
        self._check(self._lib.ps_end_utt(self._decoder))
        return self._said()

    def _said(self) -> str:
        spoken = list(self._spoken())
        lone = spoken[0] if len(spoken) == 1 else None
        if lone is not None and lone[1] > NOISE_FRAMES + NOISE_FRAMES_PER_LETTER * len(lone[0]):
            return ""
        return self.words()

    def abandon(self) -> None:
        """End the utterance without its words."""
        self._lib.ps_end_utt(self._decoder)

    def _spoken(self) -> Iterator[tuple[str, int]]:
        """Yield each word with its length in frames; silence and fillers are written ``<sil>`` and ``[NOISE]``."""
        first, last = ctypes.c_int(), ctypes.c_int()
        segment = self._lib.ps_seg_iter(self._decoder)
        while segment:
            word = self._lib.ps_seg_word(segment).decode().partition("(")[0]
            self._lib.ps_seg_frames(segment, ctypes.byref(first), ctypes.byref(last))
            if not word.startswith(("<", "[", "+")):
                yield word, last.value - first.value + 1
            segment = self._lib.ps_seg_next(segment)

    @staticmethod
    def _check(status: int) -> None:
        if status < 0:
            raise EngineError("pocketsphinx is not in the state it should be in")


def package_path() -> Path | None:
    """Return where the package is installed, without importing it; None where it is not."""
    spec = importlib.util.find_spec("pocketsphinx")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


@cache
def _bind(package: Path) -> Any:
    """Load the library out of the package. Raises EngineUnavailable where its functions are not to be had."""
    candidates = [package / f"_pocketsphinx{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise EngineUnavailable(MISSING)
    try:
        lib = ctypes.CDLL(str(path))
        _declare(lib)
    except (OSError, AttributeError) as error:
        raise EngineUnavailable(f"a pocketsphinx whose library can be called: {error}") from error
    lib.err_set_loglevel_str(b"FATAL")
    return lib


def _declare(lib: ctypes.CDLL) -> None:
    pointer, string, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    number_out = ctypes.POINTER(number)
    rows_out = ctypes.POINTER(ctypes.POINTER(ctypes.POINTER(ctypes.c_float)))
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "err_set_loglevel_str": (string, [string]),
        "ps_config_parse_json": (pointer, [pointer, string]),
        "ps_config_free": (number, [pointer]),
        "ps_init": (pointer, [pointer]),
        "ps_free": (number, [pointer]),
        "ps_set_cmn": (number, [pointer, string]),
        "ps_start_utt": (number, [pointer]),
        "ps_process_raw": (number, [pointer, string, ctypes.c_size_t, number, number]),
        "ps_end_utt": (number, [pointer]),
        "ps_get_hyp": (string, [pointer, pointer]),
        "fe_init_auto_r": (pointer, [pointer]),
        "fe_free": (number, [pointer]),
        "fe_start_utt": (number, [pointer]),
        "fe_process_utt": (number, [pointer, string, ctypes.c_size_t, rows_out, number_out]),
        "fe_free_2d": (None, [pointer]),
        "ps_seg_iter": (pointer, [pointer]),
        "ps_seg_next": (pointer, [pointer]),
        "ps_seg_word": (string, [pointer]),
        "ps_seg_frames": (None, [pointer, number_out, number_out]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
