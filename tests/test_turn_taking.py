"""The table of turn taking, fact by fact."""

from __future__ import annotations

from pipeline import turn_actions as act
from pipeline.turn_taking import Agent, Caller, TurnSettings, TurnTaking

MS = 16


def _machine(**settings: object) -> TurnTaking:
    return TurnTaking(TurnSettings(endpoint_ms=200, preroll_ms=100, **settings))  # type: ignore[arg-type]


def _paused(text: str = "hi") -> TurnTaking:
    machine = _machine()
    machine.speech_started(1000 * MS)
    machine.speech_ended(2000 * MS)
    machine.words(text, final=True)
    return machine


def test_a_plain_turn() -> None:
    m = _machine()
    assert m.speech_started(1000 * MS) == [act.StartUtterance(900 * MS)]
    assert m.words("hi", final=False) == []
    assert m.speech_ended(2000 * MS) == [act.EndUtterance()]
    assert m.words("hi", final=True) == [act.PrepareReply("hi")]
    assert m.received(2199 * MS, 2000 * MS) == []
    assert m.received(2200 * MS, 2000 * MS) == [act.EndTurn("hi", 2000 * MS)]
    assert m.caller is Caller.SILENT and m.received(9999 * MS, 0) == []


def test_preroll_does_not_reach_before_the_call() -> None:
    assert _machine().speech_started(10) == [act.StartUtterance(0)]


def test_words_may_come_after_the_silence() -> None:
    m = _machine()
    m.speech_started(0)
    m.speech_ended(500 * MS)
    assert m.received(700 * MS, 500 * MS) == []
    assert m.words("late", final=True) == [act.EndTurn("late", 500 * MS)]


def test_speech_that_stirs_keeps_the_turn_open() -> None:
    m = _paused()
    assert m.received(2300 * MS, 2000 * MS, stirring=True) == []
    assert m.received(2310 * MS, 2000 * MS) == [act.EndTurn("hi", 2000 * MS)]


def test_going_on_keeps_the_preparation_until_the_words_change() -> None:
    m = _paused()
    assert m.speech_started(2100 * MS) == [act.StartUtterance(2000 * MS)]
    assert m.words("hi", final=False) == []
    assert m.words("hi you", final=False) == [act.RevokeReply()]
    assert m.speech_ended(3000 * MS) == [act.EndUtterance()]
    assert m.words("hi you", final=True) == [act.PrepareReply("hi you")]


def test_nobody_said_anything() -> None:
    m = _paused("")
    assert m.received(2200 * MS, 2000 * MS) == [act.DropUtterance()] and m.caller is Caller.SILENT


def test_barge_in_holds_then_interrupts() -> None:
    m = _machine(barge_in_ms=250)
    m.agent(Agent.SPEAKING)
    assert m.speech_started(5000 * MS) == [act.HoldReply(), act.StartUtterance(4900 * MS)]
    assert m.received(5300 * MS, 5249 * MS) == []
    assert m.received(5310 * MS, 5250 * MS) == [act.Interrupt()]
    assert m.received(5400 * MS, 5400 * MS) == []


def test_a_cough_resumes() -> None:
    m = _machine()
    m.agent(Agent.THINKING)
    m.speech_started(5000 * MS)
    assert m.speech_ended(5100 * MS) == [act.DropUtterance(), act.ResumeReply()]
    assert m.caller is Caller.SILENT


def test_without_interruptions_speech_waits_for_its_turn() -> None:
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    assert m.speech_started(5000 * MS) == []
    assert m.agent(Agent.LISTENING) == [act.StartUtterance(4900 * MS)]
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    m.speech_started(5000 * MS)
    assert m.speech_ended(6000 * MS) == [] and m.agent(Agent.LISTENING) == []


def test_an_unfinished_thought_waits_longer() -> None:
    m = _paused("I want to")
    m.completeness(0.1)
    assert m.received(2300 * MS, 2000 * MS) == []
    assert m.received(3600 * MS, 2000 * MS) == [act.EndTurn("I want to", 2000 * MS)]


def test_an_endless_utterance_is_cut() -> None:
    m = _machine(max_utterance_ms=1000)
    m.speech_started(0)
    assert m.received(999 * MS, 999 * MS) == []
    assert m.received(1000 * MS, 1000 * MS) == [act.EndUtterance(), act.StartUtterance(1000 * MS)]
    assert m.received(1500 * MS, 1500 * MS) == []


def test_typing_over_it_forgets_the_turn() -> None:
    m = _paused()
    m.reset()
    assert m.received(9000 * MS, 2000 * MS) == [] and m.words("x", final=True) == []


def test_a_preroll_does_not_repeat_the_end_of_the_speech_before() -> None:
    m = _paused()
    assert m.speech_started(2030 * MS) == [act.StartUtterance(2000 * MS)]


def test_when_the_reply_ends_by_itself_a_short_word_is_no_longer_a_cough() -> None:
    m = _machine()
    m.agent(Agent.SPEAKING)
    m.speech_started(5000 * MS)
    m.agent(Agent.LISTENING)
    assert m.speech_ended(5100 * MS) == [act.EndUtterance()]
