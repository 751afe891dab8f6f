"""The resampler: right pitch, no drift, no click, and the same output for any chunking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio import Pcm, silence
from pipeline.resample import Resampler

RATES = [(22_050, 24_000), (24_000, 48_000), (44_100, 24_000), (48_000, 16_000), (8_000, 16_000), (16_000, 8_000)]


def _tone(rate_hz: int, seconds: float, hz: float = 700.0) -> Pcm:
    return (np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz) * 12_000).astype(np.int16)


def _all_of(resampler: Resampler, pcm: Pcm) -> Pcm:
    return np.concatenate([resampler.push(pcm), resampler.flush()])


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_a_tone_keeps_its_pitch_phase_and_length(from_hz: int, to_hz: int) -> None:
    out = _all_of(Resampler(from_hz, to_hz), _tone(from_hz, 1.0))
    expected = _tone(to_hz, 1.0)
    assert len(out) == len(expected)
    inner = slice(200, -200)
    error = out[inner].astype(float) - expected[inner]
    assert np.sqrt(np.mean(error**2)) < 3


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(RATES), st.lists(st.integers(0, 700), min_size=1, max_size=12), st.integers(0, 2**31))
def test_chunking_does_not_change_a_bit(rates: tuple[int, int], chunks: list[int], seed: int) -> None:
    pcm = np.random.default_rng(seed).integers(-20_000, 20_000, sum(chunks)).astype(np.int16)
    chunked = Resampler(*rates)
    parts = [chunked.push(part) for part in np.split(pcm, np.cumsum(chunks)[:-1])]
    assert np.array_equal(np.concatenate([*parts, chunked.flush()]), _all_of(Resampler(*rates), pcm))


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_it_withholds_16_samples_of_the_lower_rate(from_hz: int, to_hz: int) -> None:
    ready = Resampler(from_hz, to_hz).push(_tone(from_hz, 0.5))
    withheld_s = 0.5 - len(ready) / to_hz
    assert withheld_s == pytest.approx(16 / min(from_hz, to_hz), abs=2 / to_hz)


def test_equal_rates_are_untouched() -> None:
    pcm = _tone(24_000, 0.02)
    resampler = Resampler(24_000, 24_000)
    assert resampler.push(pcm) is pcm
    assert len(resampler.flush()) == 0


@pytest.mark.parametrize("end", ["flush", "reset"])
def test_after_its_end_nothing_of_the_stream_is_left(end: str) -> None:
    resampler = Resampler(24_000, 48_000)
    resampler.push(_tone(24_000, 0.1))
    getattr(resampler, end)()
    assert not _all_of(resampler, silence(480)).any()


def test_an_empty_push_and_an_unstarted_flush_yield_nothing() -> None:
    resampler = Resampler(8_000, 16_000)
    assert len(resampler.push(silence(0))) == 0
    assert len(resampler.flush()) == 0


def test_a_slice_of_an_array_is_taken_as_it_is() -> None:
    pcm = _tone(24_000, 0.1)
    assert np.array_equal(
        _all_of(Resampler(24_000, 48_000), pcm[::2]), _all_of(Resampler(24_000, 48_000), pcm[::2].copy())
    )
