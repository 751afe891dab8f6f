"""A caller's audio as one contiguous axis of samples that keeps up with real time and never runs away from it.

Downstream counts samples instead of reading a clock, so somebody has to decide how long a pause was. Two witnesses
speak: RTP timestamps (exact, but only once the caller sends again) and the clock (always there, but neither the
caller's nor free of jitter). The rules:

- While packets come, their timestamps decide: a jump is as much silence as it says.
- Nothing for 200 ms: the clock decides, at once for those 200 ms and then every 20 ms. What it fed is taken off the
  jump that the next packet may show, so a pause is never counted twice; and where the clock decided, the jump adds
  nothing beyond it, so an hour of silence with 500 ppm between both clocks is still an hour.
- ``filled_s`` is the moment up to which the axis is filled. Sound that comes late pulls it along; sound that comes in
  a burst after silence was fed runs ahead of it, at most 1 s, and is paid back by less silence later. Such a debt is
  forgiven by 1 % of what is played (more than clocks drift), but for the last chunk of silence before sound came back:
  that much (up to 20 ms) the clock did feed too early, time and again.

Sans-IO: time is an argument, in seconds; samples are at the rate of the axis.
"""

from __future__ import annotations

MAX_QUIET_S = 0.200
SILENCE_CHUNK_S = 0.020
MAX_AHEAD_S = 1.0
MAX_JUMP_AHEAD_S = 0.5
"""How far timestamps alone may take the axis; less than what sound may, so that jumps without end add nothing more."""
FORGIVEN = 0.01


class AudioAxis:
    """Decide how many samples of silence to add, and when."""

    def __init__(self, rate_hz: int, now_s: float) -> None:
        self._rate_hz = rate_hz
        self._filled_s = now_s
        self._heard_s = now_s
        self._fed_s = 0.0
        self._owed_s = 0.0

    @property
    def deadline_s(self) -> float:
        """When ``silence`` is to be called next if nothing is played until then."""
        return max(self._heard_s + MAX_QUIET_S, self._filled_s + SILENCE_CHUNK_S)

    def play(self, samples: int, now_s: float) -> None:
        """Note that sound was added."""
        seconds = samples / self._rate_hz
        ahead_s = max(0.0, self._filled_s + seconds - now_s)
        self._owed_s = min(ahead_s, self._owed_s)
        self._filled_s = now_s + min(max(self._owed_s, ahead_s - seconds * FORGIVEN), MAX_AHEAD_S)
        self._heard_s = now_s
        self._fed_s = 0.0

    def gap(self, samples: int, now_s: float) -> int:
        """Return how many of ``samples`` that are missing before the next sound to add, and note them as added."""
        fed_s = min(self._fed_s, samples / self._rate_hz)
        self._fed_s -= fed_s
        room_s = 0.0 if fed_s else MAX_JUMP_AHEAD_S
        wanted_s = min(samples / self._rate_hz - fed_s, now_s - self._filled_s + room_s)
        return self._fill(wanted_s)

    def silence(self, now_s: float) -> int:
        """Return how much silence to add now that nothing was played until the deadline, and note it as added."""
        if now_s < self.deadline_s:
            return 0
        if now_s - self._filled_s > MAX_AHEAD_S:  # this process slept; the caller's pause was not that long
            self._filled_s = now_s - MAX_AHEAD_S
        samples = self._fill(now_s - self._filled_s)
        self._fed_s += samples / self._rate_hz
        self._owed_s = SILENCE_CHUNK_S
        return samples

    def _fill(self, seconds: float) -> int:
        samples = max(0, round(seconds * self._rate_hz))
        self._filled_s += samples / self._rate_hz
        return samples
