"""Exact percentiles of what was measured lately, beside the histograms, which know all times and no exact value."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of ``n`` values; None where there are none."""

    n: int
    p50_ms: float | None
    p95_ms: float | None


def percentiles(values_ms: Iterable[float]) -> Percentiles:
    """Return them by nearest rank: each is a value that was measured."""
    ordered = sorted(values_ms)
    return Percentiles(len(ordered), _rank(ordered, 0.5), _rank(ordered, 0.95))


def _rank(ordered: list[float], part: float) -> float | None:
    return round(ordered[math.ceil(part * len(ordered)) - 1], 1) if ordered else None


class Recent:
    """The last ``window`` measures, each of which has values by name. Adding and asking are synchronous and cheap."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._measures: deque[Mapping[str, float]] = deque(maxlen=window)

    def __len__(self) -> int:
        return len(self._measures)

    def add(self, **values_ms: float) -> None:
        """Take a measure, and forget the oldest one beyond the window."""
        self._measures.append(values_ms)

    def percentiles(self, name: str) -> Percentiles:
        """Return those of one name, over the measures that have it."""
        return percentiles(measure[name] for measure in self._measures if name in measure)
