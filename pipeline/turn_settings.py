"""How turns are taken, in milliseconds of audio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Times in milliseconds of audio."""

    endpoint_min_ms: int = 200
    """Silence that ends a turn which an end-of-turn engine is sure is over; `endpoint_ms` if that is less."""
    endpoint_ms: int = 400
    """Silence that ends a turn of which nobody knows whether it is over."""
    endpoint_max_ms: int = 1600
    """Silence that ends a turn which an engine is sure goes on; `endpoint_ms` if that is more."""
    judge_ms: int = 100
    """Silence at which an engine is asked, though it may be none: it thinks while the silence becomes a pause."""
    settle_ms: int = 20
    """Silence at which the words so far are asked for: transcription, model and voice work behind the rest of it."""
    answer_ms: int = 300
    """What an answer takes from the words to its first sound, until it is known better."""
    barge_in_ms: int = 1000
    """Speech over the agent takes the floor with its first words; if it is this long, also without any."""
    backchannel_ms: int = 5000
    """If it is this long it takes the floor whatever its words are: no sign of attention lasts that long."""
    verdict_ms: int = 1000
    """After speech over the agent it goes on if no words came within this time; they count when they come."""
    preroll_ms: int = 300
    max_utterance_ms: int = 30_000
    max_turn_ms: int = 600_000
    """A turn that is longer is answered, whether the caller goes on or not."""
    min_press_ms: int = 100
    """A press that is shorter was a slip of the finger: nothing is transcribed."""
    max_press_ms: int = 600_000
    """A talk button that stays down longer is stuck."""
    allow_interruptions: bool = True
