"""When the caller's turn is over: whole conversations in virtual time, with an end-of-turn engine that is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pipeline.agents import Agent
from pipeline.audio import Pcm
from pipeline.engines import Engines
from pipeline.errors import EngineError
from pipeline.events import EngineFailed, ReplyAudioStarted, TurnEnded
from pipeline.reply import Patience
from pipeline.session import SessionSettings
from pipeline.speech import SpeechSettings
from pipeline.turn.heuristic import HeuristicEndOfTurn
from pipeline.turn.silence import SilenceEndOfTurn
from pipeline.turn_settings import TurnSettings

from .fakes import FakeStt, engines
from .script import Played, play

SETTINGS = SessionSettings(SpeechSettings(pause_ms=200), TurnSettings())
"""Turns end after 200, 400 or 1600 ms."""
SPOKEN_MS = 600
ONE_TURN = "#" * 30 + "." * 150


def by_the_last_word(words: str) -> float:
    """Judge as a child would."""
    return {"and": 0.0, "": 0.5}.get(words.split(" ")[-1], 1.0)


@dataclass
class FakeTurn:
    """Judges by ``opinion``, ``delay_s`` after it was asked, and notes what it was asked."""

    opinion: Callable[[str], Any] = by_the_last_word
    delay_s: float = 0.0
    reads_words: bool = True
    asked: list[tuple[int, str, str | None]] = field(default_factory=list)
    canceled: int = 0

    async def is_complete(self, audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        self.asked.append((len(audio_tail) // 16, transcript, language))
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        judged: float = self.opinion(transcript)
        return judged


def judged(turn: Any, *texts: str, stt: FakeStt | None = None) -> Engines:
    return replace(engines(stt or FakeStt(texts or ("how are you",))), turn=turn)


def wait_ms(played: Played) -> float:
    """Return how long after the caller's last sound the answer came; nothing failed."""
    assert played.all(EngineFailed) == []
    return played.at(ReplyAudioStarted) - SPOKEN_MS


def test_what_is_finished_is_answered_after_the_least_silence() -> None:
    turn = FakeTurn()
    played = play(ONE_TURN, judged(turn), settings=SETTINGS)
    assert wait_ms(played) == 200
    assert turn.asked == [(700, "", "en"), (800, "how are you", "en")], "at the first silence, and with the words"


def test_a_trailing_and_is_given_time() -> None:
    played = play(ONE_TURN, judged(FakeTurn(), "tea and"), settings=SETTINGS)
    assert wait_ms(played) == 1600
    went_on = play("#" * 30 + "." * 60 + ONE_TURN, judged(FakeTurn(), "tea and", "a biscuit"), settings=SETTINGS)
    assert went_on.all(TurnEnded) == [TurnEnded(1, "tea and a biscuit")]
    assert went_on.at(ReplyAudioStarted) == SPOKEN_MS + 1200 + SPOKEN_MS + 200


def test_words_that_come_after_the_silence_rule_still_count() -> None:
    late = FakeStt(("tea and",), delay_s=0.5)
    assert wait_ms(play(ONE_TURN, judged(FakeTurn(), stt=late), settings=SETTINGS)) == 1600
    late = FakeStt(("how are you",), delay_s=0.5)
    assert wait_ms(play(ONE_TURN, judged(FakeTurn(), stt=late), settings=SETTINGS)) == 700
    slow = FakeTurn(delay_s=0.1)
    late = FakeStt(("how are you",), delay_s=0.5)
    assert wait_ms(play(ONE_TURN, judged(slow, stt=late), settings=SETTINGS)) == 800, "it is waited for"


def test_an_engine_that_goes_by_the_sound_is_not_waited_for_again() -> None:
    turn = FakeTurn(lambda words: 1.0, delay_s=0.1, reads_words=False)
    late = FakeStt(("how are you",), delay_s=0.5)
    assert wait_ms(play(ONE_TURN, judged(turn, stt=late), settings=SETTINGS)) == 700
    assert turn.asked == [(700, "", "en")]


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (FakeTurn(delay_s=1e6), "no judgment within 0.25 s"),
        (FakeTurn(lambda words: 1 / 0), "ZeroDivisionError: division by zero"),
        (FakeTurn(lambda words: _refuse()), "no model"),
        (FakeTurn(lambda words: _cancel()), "the engine canceled itself"),
        (FakeTurn(lambda words: float("nan")), "judged nan, which is no probability"),
        (FakeTurn(lambda words: 1.1), "judged 1.1, which is no probability"),
        (FakeTurn(lambda words: "yes"), "TypeError: '<=' not supported between instances of 'float' and 'str'"),
    ],
    ids=["hangs", "raises", "refuses", "cancels", "nan", "too sure", "words"],
)
def test_an_engine_that_fails_leaves_the_silence_rule(turn: FakeTurn, says: str) -> None:
    played = play(ONE_TURN, judged(turn), settings=SETTINGS)
    failed = played.all(EngineFailed)
    assert {(failure.stage, failure.error, failure.reply) for failure in failed} == {("turn", says, None)}
    assert [turn.text for turn in played.all(TurnEnded)] == ["how are you"]
    expected_ms = 450 if turn.delay_s else 400  # asked again at 200 ms, when the words came, and given 250 ms
    assert expected_ms <= played.at(ReplyAudioStarted) - SPOKEN_MS < expected_ms + 20


def test_that_an_engine_is_too_slow_is_told_once() -> None:
    played = play((ONE_TURN + "." * 200) * 3, judged(FakeTurn(delay_s=0.3)), settings=SETTINGS)
    assert len(played.all(TurnEnded)) == 3
    assert [failure.error for failure in played.all(EngineFailed)] == ["no judgment within 0.25 s"]
    assert played.session is not None and played.session._listening.late_judgments == 3


def _refuse() -> float:
    raise EngineError("no model")


def _cancel() -> float:
    raise asyncio.CancelledError


def test_an_engine_is_given_as_long_as_the_session_says() -> None:
    patient = replace(SETTINGS, patience=Patience(turn_s=0.5))
    assert wait_ms(play(ONE_TURN, judged(FakeTurn(delay_s=0.4)), settings=patient)) == 200 + 400


def test_only_the_last_question_counts() -> None:
    """Asked at 100 ms, at 200 ms with the words, and again when the caller went on and paused again."""
    turn = FakeTurn(lambda words: 0.0 if words == "tea" else 1.0, delay_s=0.2)
    played = play("#" * 30 + "." * 15 + ONE_TURN, judged(turn, "tea", "and a biscuit"), settings=SETTINGS)
    assert [words for _, words, _ in turn.asked] == ["", "tea", "tea", "tea and a biscuit"]
    assert turn.canceled == 2, "one was answered while the caller spoke, which nobody heard"
    assert [turn.text for turn in played.all(TurnEnded)] == ["tea and a biscuit"]
    assert played.at(ReplyAudioStarted) == SPOKEN_MS + 300 + SPOKEN_MS + 400


def test_the_engine_hears_the_running_turn_and_nothing_before_it() -> None:
    turn = FakeTurn()
    play("." * 50 + ONE_TURN + "." * 400 + ONE_TURN, judged(turn), settings=SETTINGS)
    assert [heard_ms for heard_ms, _, _ in turn.asked] == [300 + 700, 300 + 800] * 2, "with its pre-roll"


def test_the_engine_is_told_the_agents_language_where_nobody_tells_another() -> None:
    turn = FakeTurn()
    play(ONE_TURN, judged(turn), settings=SETTINGS, agent=Agent("a", "A", language="de"))
    assert {language for _, _, language in turn.asked} == {"de"}


@pytest.mark.parametrize("endpoint_ms", [200, 400, 900])
def test_the_silence_engine_is_the_silence_rule(endpoint_ms: int) -> None:
    settings = SessionSettings(SpeechSettings(pause_ms=100), TurnSettings(endpoint_ms=endpoint_ms))
    alone, with_it = (play(ONE_TURN, judged(turn), settings=settings) for turn in (None, SilenceEndOfTurn()))
    assert wait_ms(alone) == wait_ms(with_it) == endpoint_ms


@pytest.mark.parametrize(
    ("said", "waits_ms"),
    [
        ("What time is it?", 203),
        ("what time is it", 279),
        ("Yes please.", 230),
        ("I live in Berlin", 361),
        ("I would like to", 1497),
        ("Apples, pears, plums,", 1535),
    ],
)
def test_the_heuristic_in_a_conversation(said: str, waits_ms: int) -> None:
    """Words come while the caller speaks; audio is looked at every 20 ms."""
    turn = HeuristicEndOfTurn()
    heard = judged(turn, stt=FakeStt((said,), partials=True))
    played = play("#" * 60 + "." * 150, heard, settings=SETTINGS)
    turn.close()
    assert played.all(EngineFailed) == []
    assert [ended.text for ended in played.all(TurnEnded)] == [said]
    assert waits_ms <= played.at(ReplyAudioStarted) - 1_200 < waits_ms + 20
