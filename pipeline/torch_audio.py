"""Make torchaudio importable beside whatever torch there is: a library that finds it broken breaks, too."""

from __future__ import annotations

import importlib
import logging
import sys
import types
from importlib.util import find_spec
from typing import Any

log = logging.getLogger(__name__)


def import_torchaudio() -> None:
    """Import torchaudio if it is installed, without its native library where that was built for another torch.

    Every torchaudio wheel in the registry is linked to CUDA, and there is none for the newest torch. transformers
    imports it wherever it is installed; XTTS resamples and makes spectrograms with it, which needs no native code.
    Idempotent.
    """
    if find_spec("torchaudio") is None:
        return
    try:
        importlib.import_module("torchaudio")
    except (OSError, ImportError, RuntimeError, AttributeError) as error:
        log.info("torchaudio's native library does not fit this torch and is left out: %s", str(error).split("\n")[0])
        for name in [name for name in tuple(sys.modules) if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _no_extension()
        importlib.import_module("torchaudio")


def _no_extension() -> types.ModuleType:
    extension: Any = types.ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = lambda: None
    extension.fail_if_no_align = lambda function: function
    module: types.ModuleType = extension
    return module
