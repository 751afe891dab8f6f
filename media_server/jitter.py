"""A jitter buffer for a listener that is a machine: it repairs order and names losses, and never delays otherwise.

A player needs a steady supply and so a standing delay; speech detection does not. Hence:

- A packet in sequence leaves the moment it arrives, whatever the jitter. The standing delay is zero.
- A packet that proves a hole waits for the hole to be filled, ``WAIT_S`` and at most ``MAX_WAITING`` packets. Then the
  hole is named (``Lost``) and everything behind it leaves at once: the delay is back at zero.
- A packet that comes after its place was given up is dropped and counted. It shows how far packets overtake each
  other here, so from then on holes wait as long as it would have needed, at most ``MAX_WAIT_S``; that is forgotten
  within ``FORGOTTEN_S`` without another. Only a network that reorders is waited for longer, and only at its holes.
- A jump in timestamps without a hole in sequence numbers is silence the sender did not send (DTX): ``Gap``.
- What does not continue the stream (another SSRC, a far sequence number) restarts it only when its own successor
  follows directly, as RFC 3550 A.1 does: one stray packet changes nothing, two sources that alternate never flap.

Sans-IO: time is an argument, in seconds on any monotonic clock; all ``samples`` count the RTP clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WAIT_S = 0.020
"""One packet's time: a packet that comes later than the one behind it nearly always comes before the next."""
MAX_WAIT_S = 0.060
"""Later than that is too late for a conversation, and nothing to learn from."""
FORGOTTEN_S = 20.0
MAX_WAITING = 8
MAX_JUMP = 100
"""A sequence number this far ahead or behind does not belong to the stream (2 s of 20 ms packets)."""
MAX_CONCEALED_S = 0.120
"""A longer loss is silence: sound made up from nothing does not get better with length."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet in its place."""

    payload: bytes
    samples: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Sound that never came. ``following`` is the next packet's payload if that carries a copy of it (in-band FEC)."""

    samples: int
    following: bytes | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Silence: nothing was lost (or too much to make up), but time went on."""

    samples: int


Item = Packet | Lost | Gap


@dataclass(frozen=True, slots=True)
class Arrival:
    """An RTP packet as it came in. The sequence number has 16 bits, timestamp and SSRC 32 (RFC 3550 section 5.1)."""

    sequence_number: int
    timestamp: int
    payload: bytes
    time_s: float
    ssrc: int = 0


class JitterCounters:
    """Packets since the stream began. ``lost`` = ``concealed`` + ``recovered`` (from the following packet)."""

    __slots__ = ("concealed", "duplicate", "late", "lost", "received", "recovered", "reordered", "stray")

    def __init__(self) -> None:
        self.received = 0
        self.lost = 0
        self.late = 0
        self.duplicate = 0
        self.reordered = 0
        self.concealed = 0
        self.recovered = 0
        self.stray = 0

    def as_dict(self) -> dict[str, int]:
        """Return every counter by its name."""
        return {name: getattr(self, name) for name in self.__slots__}


class AudioJitterBuffer:
    """Turn arrivals into items in order.

    ``samples_of(payload)`` is a payload's length at the RTP clock of ``clock_hz`` (0 if it holds no sound);
    ``carries_fec(payload)`` tells whether it holds a copy of the packet before it. Neither may raise. Pass ``counters``
    to go on counting where another buffer ended.
    """

    def __init__(
        self,
        clock_hz: int,
        samples_of: Callable[[bytes], int],
        carries_fec: Callable[[bytes], bool] = lambda _: False,
        counters: JitterCounters | None = None,
    ) -> None:
        self.counters = counters or JitterCounters()
        self._samples_of = samples_of
        self._carries_fec = carries_fec
        self._max_concealed = int(clock_hz * MAX_CONCEALED_S)
        self._stream: _Stream | None = None
        self._stray: Arrival | None = None

    @property
    def deadline_s(self) -> float | None:
        """When ``poll`` has something to give up, or None."""
        return self._stream.deadline_s if self._stream else None

    def push(self, arrival: Arrival) -> list[Item]:
        """Take a packet; return what is now due, in order."""
        self.counters.received += 1
        if self._stream is None:
            return self._start([arrival])
        index = self._stream.index(arrival)
        if index is None:
            return self._push_stray(arrival)
        self._stray = None
        items = self._insert(self._stream, index, arrival)
        return items + self.poll(arrival.time_s)

    def poll(self, now_s: float) -> list[Item]:
        """Give up the holes whose time is over; return what is now due, in order."""
        items: list[Item] = []
        while self._stream and self._stream.deadline_s is not None and self._stream.deadline_s <= now_s:
            items += self._give_up(self._stream)
        return items

    def _start(self, arrivals: Iterable[Arrival]) -> list[Item]:
        items: list[Item] = []
        self._stray = None
        for arrival in arrivals:
            if self._stream is None:
                self._stream = _Stream(arrival)
            items += self._insert(self._stream, self._stream.index(arrival) or 0, arrival)
        return items

    def _push_stray(self, arrival: Arrival) -> list[Item]:
        stray, self._stray = self._stray, arrival
        self.counters.stray += 1
        if (
            stray is None
            or stray.ssrc != arrival.ssrc
            or _signed(arrival.sequence_number - stray.sequence_number, 16) != 1
        ):
            return []
        items = self.poll(float("inf"))
        self._stream = None
        self.counters.stray -= 2
        return items + self._start([stray, arrival])

    def _insert(self, stream: _Stream, index: int, arrival: Arrival) -> list[Item]:
        if index in stream.waiting or index in stream.played:
            self.counters.duplicate += 1
            return []
        if index < stream.next_index:
            self.counters.late += 1
            stream.patience.learn(index, arrival.time_s)
            return []
        if stream.waiting and index < max(stream.waiting):
            self.counters.reordered += 1
        stream.waiting[index] = arrival
        items = self._release(stream)
        while len(stream.waiting) >= MAX_WAITING:
            items += self._give_up(stream)
        return items

    def _release(self, stream: _Stream) -> list[Item]:
        items: list[Item] = []
        while arrival := stream.pop():
            samples = self._samples_of(arrival.payload)
            if samples > 0:
                gap_samples = _signed(arrival.timestamp - stream.next_timestamp, 32)
                items += [Gap(gap_samples)] if gap_samples > 0 else []
                items.append(Packet(arrival.payload, samples))
                stream.next_timestamp = arrival.timestamp + samples
                stream.packet_samples = samples
        return items

    def _give_up(self, stream: _Stream) -> list[Item]:
        """Name the first hole and release what is behind it."""
        first = min(stream.waiting)
        lost = first - stream.next_index
        stream.patience.note(first, stream.known_s)
        arrival = stream.waiting[first]
        missing_samples = _signed(arrival.timestamp - stream.next_timestamp, 32)
        following = arrival.payload if missing_samples > 0 and self._carries_fec(arrival.payload) else None
        self.counters.lost += lost
        self.counters.recovered += following is not None
        self.counters.concealed += lost - (following is not None)
        items = self._conceal(missing_samples, lost, stream.packet_samples, following)
        stream.next_index = first
        stream.next_timestamp = arrival.timestamp
        return items + self._release(stream)

    def _conceal(self, missing_samples: int, lost: int, packet_samples: int, following: bytes | None) -> list[Item]:
        """Cut a hole of ``lost`` packets into pieces.

        The copy in the following packet is the sound right before it; what the lost packets do not account for, or
        is too long to make up, is silence between.
        """
        last_samples = min(packet_samples, missing_samples) if following is not None else 0
        made_up = min(missing_samples - last_samples, (lost - bool(last_samples)) * packet_samples, self._max_concealed)
        items: list[Item] = [Lost(min(packet_samples, made_up - i)) for i in range(0, made_up, packet_samples)]
        silent_samples = missing_samples - last_samples - max(0, made_up)
        items += [Gap(silent_samples)] if silent_samples > 0 else []
        items += [Lost(last_samples, following)] if last_samples else []
        return items


class _Stream:
    """Where one SSRC's stream stands. Indexes are sequence numbers without their wrap."""

    def __init__(self, first: Arrival) -> None:
        self.ssrc = first.ssrc
        self.next_index = first.sequence_number
        self.next_timestamp = first.timestamp
        self.packet_samples = 1
        self.waiting: dict[int, Arrival] = {}
        self.played: deque[int] = deque(maxlen=MAX_JUMP)
        self.patience = _Patience()

    def index(self, arrival: Arrival) -> int | None:
        """Return the arrival's place, or None if it does not continue this stream."""
        ahead = _signed(arrival.sequence_number - self.next_index, 16)
        return self.next_index + ahead if arrival.ssrc == self.ssrc and abs(ahead) < MAX_JUMP else None

    @property
    def known_s(self) -> float:
        """Since when the first hole has been known. Only while packets wait."""
        return min(arrival.time_s for arrival in self.waiting.values())

    @property
    def deadline_s(self) -> float | None:
        """When the first hole has been known for long enough."""
        return self.known_s + self.patience.wait_s(self.known_s) if self.waiting else None

    def pop(self) -> Arrival | None:
        """Take the next packet in sequence if it is there."""
        arrival = self.waiting.pop(self.next_index, None)
        if arrival is not None:
            self.played.append(self.next_index)
            self.next_index += 1
        return arrival


class _Patience:
    """How long a hole is worth waiting for, learned from packets that came when theirs had been given up."""

    def __init__(self) -> None:
        self._given_up: deque[tuple[int, float]] = deque(maxlen=MAX_WAITING)
        self._needed_s = WAIT_S
        self._learned_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Return how long a hole waits that is known since now."""
        left = max(0.0, 1 - (now_s - self._learned_s) / FORGOTTEN_S)
        return WAIT_S + (self._needed_s - WAIT_S) * left

    def note(self, end_index: int, known_s: float) -> None:
        """Note that the hole before ``end_index`` was given up, which had been known for a while."""
        self._given_up.append((end_index, known_s))

    def learn(self, index: int, now_s: float) -> None:
        """Wait longer from now on if that would have helped a packet which came too late."""
        known_s = next((known_s for end_index, known_s in self._given_up if index < end_index), now_s)
        if self.wait_s(now_s) < now_s - known_s <= MAX_WAIT_S:
            self._needed_s, self._learned_s = now_s - known_s, now_s


def _signed(difference: int, bits: int) -> int:
    """Return a difference of wrapping counters as the nearest signed number."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half
