"""The overlap benchmark: its callers, its tables of a few turns, and its search for stale frames, which finds some."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import overlap, spoken, stale, turn_set
from benchmarks.answered import Row, taken
from benchmarks.people import TEXTS, recording
from pipeline import endpointing
from pipeline.answering import Answering
from pipeline.engines import load
from pipeline.playout import Playout
from pipeline.reply import Reply
from pipeline.session_settings import SessionSettings
from pipeline.turn_settings import TurnSettings

from .tiny_smart_turn import SHAPE, build


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be few turns, one voice a half, two recordings, and none of the developer's settings."""
    monkeypatch.setattr(
        turn_set, "TURNS", ["Yes.", "No.", "I want some | tea.", "Um | hello.", "It's in | May.", "Go."]
    )
    monkeypatch.setattr(turn_set, "VOICES", {"tuned on": ("en-us",), "held out": ("en-gb",)})
    monkeypatch.setattr(overlap, "TEXTS", {name: TEXTS[name] for name in ("lj001-0008.wav", "go-forward.wav")})
    monkeypatch.setattr(overlap, "READINGS", 2)
    monkeypatch.setenv("VOCAL_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", "/nonexistent")
    monkeypatch.delenv("VOCAL_SMART_TURN_MODEL", raising=False)


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
    patient = Row("silence", overlap.waits(1600))
    for turn in taken(patient, speech, ear):
        assert not turn.cut_off and turn.complete and turn.released == 1
        assert turn.endpoint_ms is not None and turn.response_ms is not None and turn.told_ms is not None
        assert 1560 <= turn.endpoint_ms <= 1720 and turn.response_ms == pytest.approx(turn.endpoint_ms, abs=20)
    hasty = Row("silence", overlap.waits(200))
    cut = [turn for turn in taken(hasty, speech, ear) if turn.cut_off]
    assert cut and all(turn.released >= 2 and turn.model >= turn.released for turn in cut)


def test_recorded_people_are_heard_as_they_spoke_but_for_the_pauses_that_are_put_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = recording("jfk.wav")
    sound = one.sound(one.begin, one.last.end)
    monkeypatch.setattr(spoken, "TURNS", ["Nobody pauses."])
    [speech] = spoken.readings(one, 2, 2, random.Random(1))
    for turn in speech.turns:
        assert turn.text == TEXTS["jfk.wav"] and turn.pauses == len(one.paused) == 4, "his own are left to him"
        assert np.array_equal(speech.pcm[turn.begin_samples : turn.end_samples], sound)
    monkeypatch.setattr(spoken, "TURNS", ["In | one place."])
    said = spoken.readings(one, 20, 10, random.Random(1))
    turns = [(speech, turn) for speech in said for turn in speech.turns]
    assert len(turns) == 20 and {turn.pauses for _, turn in turns} == {4, 5}, "a place is one of his or another"
    for speech, turn in turns:
        grown = turn.end_samples - turn.begin_samples - len(sound)
        assert grown >= 1600 if turn.pauses == 5 else grown != 0
        for word in turn.words:
            assert np.abs(speech.pcm[word.at_samples - 1600 : word.at_samples + 1600].astype(int)).max() > 200


def test_between_their_turns_and_in_their_pauses_is_the_noise_of_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken, "TURNS", ["It | is."])
    one = recording("lj001-0008.wav")
    [place], level = one.cut, np.abs(one.room(16_000).astype(int)).mean()
    assert 0 < level < np.percentile(np.abs(one.pcm.astype(int)), 50), "neither digital silence nor speech"
    [speech] = spoken.readings(one, 3, 3, random.Random(1))
    for before, turn in zip([None, *speech.turns], speech.turns, strict=False):
        cut = turn.begin_samples + (place.end - one.begin) * 160
        rooms = [speech.pcm[before.end_samples if before else 0 : turn.begin_samples], speech.pcm[cut : cut + 1600]]
        assert [np.abs(room.astype(int)).mean() for room in rooms] == pytest.approx([level] * 2, rel=0.1)


def test_a_session_waits_for_a_judgment_in_virtual_time(
    few: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A network that has no opinion: 200 ms here, or as long as it takes to say so, asked after 100."""
    undecided = build(tmp_path / "turn.onnx", np.zeros(SHAPE, np.float32))
    monkeypatch.setenv("VOCAL_SMART_TURN_MODEL", str(undecided))
    monkeypatch.setattr(turn_set, "TURNS", ["Yes.", "Go.", "I do."])
    speech = spoken.speeches(turn_set.synthesized("tuned on"), 2, random.Random(1))[0]
    ear = spoken.listened(load("vad", "energy", {}), speech.pcm)
    for takes_s, endpoint_ms in ((0.05, 200), (0.2, 300)):
        with overlap.judging("smart_turn", takes_s) as engine:
            row = Row("Smart Turn", SessionSettings(turns=TurnSettings(endpoint_ms=200)), engine)
            ends_ms = [turn.endpoint_ms for turn in taken(row, speech, ear)]
        assert ends_ms == pytest.approx([endpoint_ms] * 2, abs=25)


def test_it_prints_what_each_way_to_prepare_costs(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = endpointing.SLACK_MS
    overlap.measure(["energy"], ["in time", "at the end"])
    assert shipped == endpointing.SLACK_MS
    out = capsys.readouterr().out
    tables = [table.partition("\n\n| model calls a turn |")[0] for table in out.split(" detected by energy, ")[1:]]
    assert [table.partition("\n")[0] for table in tables[:2]] == ["0.67 pauses a turn", "0.33 pauses a turn"]
    cells = {
        (name.strip(), i): [cell.strip() for cell in more]
        for i, table in enumerate(tables)
        for _, name, *more, _ in (line.split("|") for line in table.splitlines() if line.startswith("| "))
    }
    assert len(cells) == 3 * (1 + 2 * 5)
    for i in range(2):
        in_time, late = (cells[f"silence of 300 ms{when}", i] for when in ("", ", prepared at the end"))
        assert float(late[3]) == 0.0, "nothing is revoked that is not prepared"
        medians = [float(row[7].split("/")[0]) for row in (in_time, late)]
        assert medians[1] - medians[0] > 150, "but it is later by what an answer takes"
    assert "\npeople, 4 turns, " in out
    assert "\nSmart Turn was not measured: a model: pipecat-ai/smart-turn-v3 is not here" in out


def test_it_tells_each_recording_apart_and_has_a_row_for_smart_turn_where_its_model_is(
    few: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOCAL_SMART_TURN_MODEL", str(build(tmp_path / "turn.onnx")))
    overlap.measure(["silero"], ["in time"])
    out = capsys.readouterr().out
    assert "was not measured" not in out and out.count("\n| Smart Turn | ") == 3 + 1
    people, each = out.split("\n\n| model calls a turn | lj001-0008, ")
    for row in ("silence of 300 ms", "heuristic, words with marks", "Smart Turn"):
        some, others = (float(cell) for cell in each.partition(f"\n| {row} |")[2].split("|")[:2])
        total = people.rpartition(f"\n| {row} |")[2].split("|")[1]
        assert float(total) == pytest.approx((some + others) / 2, abs=0.01) and min(some, others) >= 1.0


def test_the_documented_model_calls_are_what_is_counted() -> None:
    """Of one recording, and by rows that need no model; drawn by a seed, they are the same everywhere."""
    said = overlap.recorded()["austen-0870"]
    heard = [spoken.listened(load("vad", "silero", {}), speech.pcm) for speech in said]
    pauses = np.mean([turn.pauses for speech in said for turn in speech.turns])
    [_, table] = Path("docs/latency.md").read_text().split('| model calls a turn | "... to do for them.", ')
    assert float(table.split()[0]) == pytest.approx(pauses, abs=0.006)
    with overlap.judging("heuristic", 0.0) as heuristic:
        for row in overlap.rows(heuristic, None)[1:5:2]:
            turns = [turn for speech, ear in zip(said, heard, strict=True) for turn in taken(row, speech, ear)]
            documented = table.partition(f"\n| {row.name} | ")[2].split()[0]
            assert np.mean([turn.model for turn in turns]) == pytest.approx(float(documented), abs=0.03), row.name


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
