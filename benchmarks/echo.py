"""How well the agent's own voice is told from the caller's, where a client sends it back.

    python -m benchmarks.echo

Voices of espeak-ng and recorded speech are the agent; echo paths of several delays, levels, rooms and codecs send them
back; recorded people are the caller, alone and over an echo. What Silero takes for speech is what there is to decide
about. The thresholds in `pipeline.echo` were chosen on one half of voices, sentences and people; the other half is
held out.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from media_server import opus
from pipeline.audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, VOICE_RATE_HZ, AudioFrame, Pcm
from pipeline.echo import HEARD_SAMPLES, Echo
from pipeline.engines import load
from pipeline.events import SpeechStarted
from pipeline.likeness import Floats
from pipeline.resample import Resampler
from pipeline.speech import SpeechSegmenter, SpeechSettings

from .loss import table
from .servers import machine
from .turn_set import RECORDINGS, VOICES, read, say, trimmed

TEXTS = {
    "tuned on": "I would like to tell you about our opening hours. We are open from nine to five, Monday to Friday.",
    "held out": "Your parcel was sent yesterday and should arrive tomorrow before noon. If not, please call us again.",
}
PEOPLE = {"tuned on": ("go-forward.wav", "lj001-0008.wav"), "held out": ("austen-0880.wav", "lj001-0004.wav")}
"""Each is the agent once, and otherwise the caller."""
SPEECH_DBFS = -20
ONSET_MS = 1500
FRAME = VOICE_RATE_HZ // 50
SETTINGS = SpeechSettings()
WINDOW = 512
"""Samples in one of Silero's."""
HISS = 2
"""Amplitude of every microphone's own noise."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way from the loudspeaker to the server."""

    delay_ms: int
    level_db: float
    room_s: float = 0.0
    """The time in which its sound falls by 60 dB; as much power comes by way of the walls as does directly."""
    noise_db: float | None = None
    """Noise, against the echo."""
    codec: str = "linear"


PATHS = {
    "80 ms, -20 dB": Way(80, -20),
    "20 ms, -10 dB": Way(20, -10),
    "600 ms, -40 dB": Way(600, -40),
    "80 ms, -20 dB, Opus both ways": Way(80, -20, codec="opus"),
    "300 ms, -30 dB, Opus, noise at -20 dB": Way(300, -30, noise_db=-20, codec="opus"),
    "150 ms, -20 dB, telephone (mu-law)": Way(150, -20, codec="mu-law"),
    "80 ms, -20 dB, room of 0.2 s": Way(80, -20, 0.2),
    "80 ms, -20 dB, room of 0.3 s, Opus, noise": Way(80, -20, 0.3, -20, "opus"),
    "80 ms, -20 dB, room of 0.5 s": Way(80, -20, 0.5),
}
DOUBLE_TALK = ("80 ms, -20 dB", "80 ms, -20 dB, room of 0.3 s, Opus, noise", "20 ms, -10 dB")
OVER_DB = (20, 12, 6, 0)
ALONE_DBFS = (-20, -40, -50)
"""Callers' levels: against the echo, and where there is none."""


# --- sound


def agents(half: str) -> Iterator[tuple[str, Pcm]]:
    """Yield the agent's voices at 24 kHz, by name."""
    for voice in VOICES[half]:
        yield voice, _pcm(_levelled(_resampled(say(TEXTS[half], voice, 1.0), SPEECH_RATE_HZ, VOICE_RATE_HZ)))
    for name in PEOPLE[half]:
        yield name, _pcm(_levelled(_resampled(trimmed(read(RECORDINGS / name)), SPEECH_RATE_HZ, VOICE_RATE_HZ)))


def returned(agent: Pcm, way: Way, caller: Floats | None = None) -> Pcm:
    """Return the microphone's sound at 16 kHz: the echo and the caller, if there is one, as the server decodes them."""
    coded = way.codec == "opus"
    sound = _through_opus(agent, VOICE_RATE_HZ) if coded else _resampled(agent, VOICE_RATE_HZ, SPEECH_RATE_HZ)
    echo = _in_room(sound.astype(float), way.room_s) * 10 ** (way.level_db / 20)
    echo = np.concatenate([np.zeros(way.delay_ms * SAMPLES_PER_MS), echo])
    dice = np.random.default_rng(len(agent))
    if way.noise_db is not None:
        echo += dice.standard_normal(len(echo)) * echo.std() * 10 ** (way.noise_db / 20)
    if caller is not None:
        echo = echo[: len(caller)] + caller[: len(echo)]
    heard = _pcm(echo + dice.standard_normal(len(echo)) * HISS)
    if way.codec == "mu-law":
        return _through_mu_law(heard)
    return _through_opus(_resampled(heard, SPEECH_RATE_HZ, opus.CLOCK_HZ), opus.CLOCK_HZ) if coded else heard


def _levelled(pcm: Pcm) -> Floats:
    """Bring the parts that are speech to `SPEECH_DBFS`."""
    powers = np.square(pcm[: len(pcm) // 160 * 160].astype(float)).reshape(-1, 160).mean(axis=1)
    rms = np.sqrt(powers[powers > powers.max() / 1000].mean())
    scaled: Floats = pcm * (10 ** (SPEECH_DBFS / 20) * 32768 / rms)
    return scaled


def _in_room(sound: Floats, room_s: float) -> Floats:
    if not room_s:
        return sound
    times_s = np.arange(round(room_s * SPEECH_RATE_HZ)) / SPEECH_RATE_HZ
    response = np.random.default_rng(0).standard_normal(len(times_s)) * 10 ** (-3 * times_s / room_s)
    response[: 2 * SAMPLES_PER_MS] = 0
    response /= np.sqrt(np.square(response).sum())
    response[0] = 1
    size = 1 << (len(sound) + len(response)).bit_length()
    wet: Floats = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response / np.sqrt(2), size))[: len(sound)]
    return wet


def _through_opus(pcm: Pcm, rate_hz: int) -> Pcm:
    encoder, decoder, step = opus.OpusEncoder(rate_hz), opus.open_decoder(SPEECH_RATE_HZ), rate_hz // 50
    frames = (AudioFrame(pcm[i : i + step], rate_hz, i) for i in range(0, len(pcm) - step + 1, step))
    return np.concatenate([decoder.decode(encoder.encode(frame)) for frame in frames])


def _through_mu_law(pcm: Pcm) -> Pcm:
    """At 8 kHz, as G.711 has it but for its tables: 8 bits on a logarithmic scale."""
    narrow = _resampled(pcm, SPEECH_RATE_HZ, 8_000) / 32768
    codes = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    return _resampled(_pcm(np.sign(codes) * (256 ** np.abs(codes) - 1) / 255 * 32768), 8_000, SPEECH_RATE_HZ)


def _resampled(sound: Pcm | Floats, from_hz: int, to_hz: int) -> Pcm:
    resampler = Resampler(from_hz, to_hz)
    return np.concatenate([resampler.push(_pcm(sound)), resampler.flush()])


def _pcm(sound: Pcm | Floats) -> Pcm:
    pcm: Pcm = np.clip(np.round(sound), -32768, 32767).astype(np.int16)
    return pcm


# --- judgment


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a microphone: where it ends, how probable speech is, and whether it was taken for echo."""

    end: int
    probability: float
    echo: bool

    @property
    def speech(self) -> bool:
        """Whether there was anything to decide."""
        return self.probability >= SETTINGS.start_probability


class Judge:
    """Silero and `Echo`, window by window."""

    def __init__(self) -> None:
        self._vad = load("vad", "silero", {})
        self.decisions = 0
        self.spent_s = 0.0

    def windows(self, agent: Pcm | None, heard: Pcm) -> list[Window]:
        """Judge what was heard while the agent, if any, spoke: frames leave each 20 ms."""
        detector, echo, sent = self._vad.open(), Echo(), 0
        size, judged = detector.window_samples, list[Window]()
        padded = np.concatenate([np.zeros(HEARD_SAMPLES, np.int16), heard])
        for end in range(size, len(heard) + 1, size):
            while agent is not None and sent * SPEECH_RATE_HZ <= end * VOICE_RATE_HZ:
                pcm = agent[sent : sent + FRAME]
                echo.left(AudioFrame(np.pad(pcm, (0, FRAME - len(pcm))), VOICE_RATE_HZ, sent, silent=not pcm.any()))
                sent += FRAME
            probability = detector.probability(heard[end - size : end])
            begun_s = time.process_time()
            is_echo = probability >= SETTINGS.stop_probability and echo.is_echo(padded[end:][:HEARD_SAMPLES], end, size)
            self.spent_s += time.process_time() - begun_s
            self.decisions += probability >= SETTINGS.stop_probability and agent is not None
            judged.append(Window(end, probability, is_echo))
        return judged


def starts(windows: Sequence[Window], *, heed_echo: bool, after: int = 0) -> list[int]:
    """Return where speech was told to start, in samples; nothing is speech up to ``after``."""
    segmenter, told = SpeechSegmenter(SETTINGS), list[int]()
    for window in windows:
        deaf = window.end <= after or (window.echo and heed_echo)
        event = segmenter.push(0.0 if deaf else window.probability, WINDOW)
        if isinstance(event, SpeechStarted):
            told.append(window.end)
    return told


def echoes(judge: Judge, half: str) -> str:
    """Send the agent back over every path; return the table of what was taken for a caller."""
    rows = []
    for name, way in PATHS.items():
        heard = [judge.windows(agent, returned(agent, way)) for _, agent in agents(half)]
        speech = [window for windows in heard for window in windows if window.speech]
        passed = sum(not window.echo for window in speech)
        before, after = (sum(len(starts(windows, heed_echo=heed)) for windows in heard) for heed in (False, True))
        rows.append([name, str(len(speech)), f"{100 * passed / len(speech):.1f} %", str(before), str(after)])
    return table(["echo", "windows", "let through", "starts of speech without", "with"], rows)


def callers(judge: Judge, half: str) -> str:
    """Let people speak while the agent does; return the table of what was not heard of them, and when they were."""
    alone = [(f"none; caller at {dbfs} dBFS", None, dbfs - SPEECH_DBFS) for dbfs in ALONE_DBFS]
    over = [
        (f"{name}; caller {db:+d} dB", PATHS[name], PATHS[name].level_db + db) for name in DOUBLE_TALK for db in OVER_DB
    ]
    rows = [_caller_row(judge, half, *case) for case in (*alone, *over)]
    return table(["echo", "windows", "taken for echo", "heard later by: median", "90th percentile", "not heard"], rows)


def _caller_row(judge: Judge, half: str, name: str, way: Way | None, gain_db: float) -> list[str]:
    speech, late_ms, missed = list[Window](), list[float](), 0
    for who, agent in agents(half):
        for person in set(PEOPLE[half]) - {who}:
            spoken = _levelled(trimmed(read(RECORDINGS / person))) * 10 ** (gain_db / 20)
            caller = np.concatenate([np.zeros(ONSET_MS * SAMPLES_PER_MS), spoken])
            caller = caller[: len(agent) * SPEECH_RATE_HZ // VOICE_RATE_HZ]
            alone = judge.windows(None, returned(np.zeros(len(agent), np.int16), Way(0, -90), caller))
            heard = judge.windows(agent, returned(agent, way or Way(0, -90), caller))
            echo = returned(agent, way).astype(float) if way else np.zeros(len(caller))
            speech += [w for a, w in zip(alone, heard, strict=False) if a.speech and _louder(caller, echo, w)]
            expected = starts(alone, heed_echo=False)
            told = starts(heard, heed_echo=True, after=ONSET_MS * SAMPLES_PER_MS)
            missed += bool(expected) and not told
            late_ms += [(told[0] - expected[0]) / SAMPLES_PER_MS] if told and expected else []
    share = 100 * sum(window.echo for window in speech) / max(1, len(speech))
    late = [f"{ms:.0f} ms" for ms in np.percentile(late_ms, [50, 90])] if late_ms else ["", ""]
    return [name, str(len(speech)), f"{share:.1f} %", *late, f"{missed} of {missed + len(late_ms)}"]


def _louder(caller: Floats, echo: Floats, window: Window) -> bool:
    """Tell whether it is speech, of which more than half is the caller's."""
    begin = window.end - WINDOW
    own, other = (float(np.square(sound[begin : window.end]).sum()) for sound in (caller, echo))
    return window.speech and own > other


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=tuple(TEXTS), default="held out")
    args = parser.parse_args(arguments)
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}, {args.half}\n")
    judge = Judge()
    print(echoes(judge, args.half), end="\n\n")
    print(f"{judge.spent_s / judge.decisions * 1e6:.0f} us a decision\n")
    print(callers(judge, args.half))


if __name__ == "__main__":
    main()
