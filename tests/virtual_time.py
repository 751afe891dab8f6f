"""Conversations in virtual time: the event loop of `benchmarks.virtual_time`."""

from __future__ import annotations

from benchmarks.virtual_time import Deadlock, VirtualTimeLoop, run

__all__ = ["Deadlock", "VirtualTimeLoop", "run"]
