"""What the two sides of a conversation are doing."""

from __future__ import annotations

from enum import Enum, auto


class Caller(Enum):
    """What the caller is doing."""

    SILENT = auto()
    SPEAKING = auto()
    PAUSED = auto()
    """Silent inside a turn that is not over yet."""
    PRESSING = auto()
    """The talk button is down."""
    DONE = auto()
    """Nothing more belongs to the turn, but its last words are still being transcribed or the agent is let finish."""


class Agent(Enum):
    """What the agent is doing."""

    LISTENING = auto()
    THINKING = auto()
    """It is its turn, and nothing was audible yet."""
    SPEAKING = auto()
