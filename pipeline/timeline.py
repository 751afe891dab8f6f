"""When each stage of one turn happened, on the event loop's clock, told relative to the caller's last sample."""

from __future__ import annotations

from dataclasses import dataclass

from .events import TurnMeasured


@dataclass(slots=True)
class Timeline:
    """Loop times in seconds; None until it happened. Stages keep the time of their first occurrence."""

    speech_end_s: float | None = None
    endpoint_s: float | None = None
    stt_s: float | None = None
    asked_s: float | None = None
    """The answer was begun. Not told: how long after that a stage came is not a matter of the turn."""
    ttft_s: float | None = None
    first_clause_s: float | None = None
    ttfb_s: float | None = None
    first_audio_s: float | None = None

    def mark(self, stage: str, at_s: float) -> None:
        """Note that ``stage`` (a field without ``_s``) happened, unless it already has."""
        if getattr(self, f"{stage}_s") is None:
            setattr(self, f"{stage}_s", at_s)

    def begin(self, speech_end_s: float, endpoint_s: float, stt_s: float | None) -> None:
        """Set the axis' zero (the caller's last speech sample) and what happened before the reply."""
        self.speech_end_s, self.endpoint_s, self.stt_s = speech_end_s, endpoint_s, stt_s

    def measured(self, turn: int, *, interrupted: bool, user: str, agent: str) -> TurnMeasured:
        """Return the turn's figures in milliseconds after the caller's last speech sample."""
        return TurnMeasured(
            turn,
            interrupted,
            user,
            agent,
            endpoint_ms=self._ms(self.endpoint_s),
            stt_ms=self._ms(self.stt_s),
            ttft_ms=self._ms(self.ttft_s),
            first_clause_ms=self._ms(self.first_clause_s),
            ttfb_ms=self._ms(self.ttfb_s),
            first_audio_ms=self._ms(self.first_audio_s),
        )

    def _ms(self, at_s: float | None) -> float | None:
        if at_s is None or self.speech_end_s is None:
            return None
        return round((at_s - self.speech_end_s) * 1000, 1)
