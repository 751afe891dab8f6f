"""The overlap benchmark: its callers, its tables of a few turns, and its search for stale frames, which finds some."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks import overlap, spoken, stale, turn_set
from pipeline import endpointing
from pipeline.answering import Answering
from pipeline.engines import load
from pipeline.playout import Playout
from pipeline.reply import Reply


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be few turns, and one voice a half."""
    monkeypatch.setattr(
        turn_set, "TURNS", ["Yes.", "No.", "I want some | tea.", "Um | hello.", "It's in | May.", "Go."]
    )
    monkeypatch.setattr(turn_set, "VOICES", {"tuned on": ("en-us",), "held out": ("en-gb",)})


def test_a_caller_says_each_turn_once_and_each_word_while_it_sounds(few: None) -> None:
    items = turn_set.synthesized("tuned on")
    said = spoken.speeches(items, 2, random.Random(1))
    assert [len(speech.turns) for speech in said] == [2, 1]
    texts = sorted(turn.text for speech in said for turn in speech.turns)
    assert texts == ["I want some tea.", "It's in May.", "Yes."]
    for speech in said:
        for turn in speech.turns:
            loud = np.abs(speech.pcm[turn.begin_samples : turn.end_samples].astype(int))
            assert loud[:800].max() > 50 and loud[-800:].max() > 50, "it begins and ends with sound"
            assert all(a.at_samples < b.at_samples for a, b in pairwise(turn.words))
            for word in turn.words:
                assert np.abs(speech.pcm[word.at_samples - 1600 : word.at_samples + 1600].astype(int)).max() > 200


def test_each_turn_is_answered_when_it_is_over_and_its_calls_are_counted(few: None) -> None:
    speech = spoken.speeches(turn_set.synthesized("tuned on"), 3, random.Random(1))[0]
    ear = spoken.listened(load("vad", "silero", {}), speech.pcm)
    patient = overlap.Row("silence", overlap.waits(1600))
    for turn in overlap.taken(patient, speech, ear):
        assert not turn.cut_off and turn.complete and turn.released == 1
        assert turn.endpoint_ms is not None and turn.response_ms is not None and turn.told_ms is not None
        assert 1560 <= turn.endpoint_ms <= 1720 and turn.response_ms == pytest.approx(turn.endpoint_ms, abs=20)
    hasty = overlap.Row("silence", overlap.waits(200))
    cut = [turn for turn in overlap.taken(hasty, speech, ear) if turn.cut_off]
    assert cut and all(turn.released >= 2 and turn.model >= turn.released for turn in cut)


def test_it_prints_what_each_way_to_prepare_costs(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = endpointing.SLACK_MS
    overlap.measure(["energy"], ["in time", "at the end"])
    assert shipped == endpointing.SLACK_MS
    cells = {
        (name.strip(), i): [cell.strip() for cell in more]
        for i, half in enumerate(capsys.readouterr().out.split("turns, speech detected by energy")[1:])
        for _, name, *more, _ in (line.split("|") for line in half.splitlines() if line.startswith("| "))
    }
    assert len(cells) == 2 * (1 + 2 * 5)
    for i in range(2):
        in_time, late = (cells[f"silence of 300 ms{when}", i] for when in ("", ", prepared at the end"))
        assert float(late[3]) == 0.0, "nothing is revoked that is not prepared"
        medians = [float(row[7].split("/")[0]) for row in (in_time, late)]
        assert medians[1] - medians[0] > 150, "but it is later by what an answer takes"


# --- stale frames


def test_no_frame_is_stale() -> None:
    """A share of what ``python -m benchmarks.overlap --stale 10000`` looks at."""
    assert ", none stale: " in stale.report(100)


def _without_clearing(self: Any) -> Reply | None:
    reply: Reply | None = self._reply
    self._reply = None
    if reply is not None and reply.task is not None:
        reply.task.cancel()
    return reply


def _never_held(self: Playout, reply: int, **more: Any) -> Any:
    return OPEN(self, reply, **(more | {"held": False}))


OPEN = Playout.open


@pytest.mark.parametrize(
    ("owner", "name", "broken"), [(Answering, "_drop", _without_clearing), (Playout, "open", _never_held)]
)
def test_it_finds_those_that_are(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any) -> None:
    """A reply that is not dropped from the playout; one that is heard before it is released."""
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(stale.Stale, match=r"^session \d+: heard \["):
        stale.report(300)


def test_whose_a_sample_is_can_be_told_at_any_loudness() -> None:
    wave = np.repeat(np.array([8_000, -8_000], np.int16), 7)
    whole = np.tile(wave, 40)
    faded = (whole * np.linspace(0, 1, len(whole))).astype(np.int16)
    assert stale.periods(whole) == stale.periods(whole // 4) == {7}
    assert stale.periods(faded) == {7}
    other = np.tile(np.repeat(np.array([8_000, -8_000], np.int16), 9), 10)
    assert stale.periods(np.concatenate([whole, np.zeros(50, np.int16), other])) == {7, 9}
