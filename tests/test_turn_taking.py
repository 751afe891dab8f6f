"""The table of turn taking, fact by fact."""

from __future__ import annotations

import pytest

from pipeline import turn_actions as act
from pipeline.endpointing import Asks
from pipeline.floor import Agent, Caller
from pipeline.turn_settings import TurnSettings
from pipeline.turn_taking import TurnTaking

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
    m = TurnTaking(TurnSettings(endpoint_ms=1000, answer_ms=300))
    m.speech_started(1000 * MS)
    m.speech_ended(2000 * MS)
    m.words("hi", final=True)
    assert m.received(2700 * MS, 2000 * MS, stirring=True) == [act.PrepareReply("hi")], "but its answer may begin"


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


# --- speech over the agent


def _over_agent(agent: Agent = Agent.SPEAKING, **settings: object) -> TurnTaking:
    """Return a machine whose caller has begun to speak at 5000 ms, over the agent."""
    machine = _machine(**settings)
    machine.agent(agent)
    assert machine.speech_started(5000 * MS) == [act.HoldReply(), act.StartUtterance(4900 * MS)]
    return machine


@pytest.mark.parametrize("agent", [Agent.THINKING, Agent.SPEAKING])
def test_words_over_the_agent_take_the_floor(agent: Agent) -> None:
    m = _over_agent(agent)
    assert m.received(5300 * MS, 5300 * MS) == [] and m.words("", final=False) == []
    assert m.words("mm", final=False, backchannel=True) == []
    assert m.words("mm no", final=False) == [act.Interrupt()]
    m.agent(Agent.LISTENING)
    assert m.words("mm no stop", final=False) == []
    assert m.speech_ended(5600 * MS) == [act.EndUtterance()]
    assert m.words("mm no stop", final=True) == [act.PrepareReply("mm no stop")]


def test_speech_that_lasts_takes_the_floor_without_words() -> None:
    m = _over_agent(barge_in_ms=250)
    assert m.received(5300 * MS, 5249 * MS) == [act.SettleWords()]
    assert m.received(5310 * MS, 5310 * MS) == [act.Interrupt()]
    assert m.received(5400 * MS, 5400 * MS) == []


def test_a_backchannel_may_be_longer_but_not_for_ever() -> None:
    m = _over_agent(barge_in_ms=250)
    m.words("yeah yeah", final=False, backchannel=True)
    assert m.received(6249 * MS, 6249 * MS) == []
    assert m.received(6250 * MS, 6250 * MS) == [act.ResumeReply()], "and the agent does not wait for its end"
    assert m.received(9999 * MS, 9999 * MS) == []
    assert m.received(10_000 * MS, 10_000 * MS) == [act.Interrupt()]


@pytest.mark.parametrize("asks", [Asks.ONCE, Asks.AGAIN])
def test_a_pause_in_speech_over_the_agent_is_judged_once_the_agent_is_silent(asks: Asks) -> None:
    m = TurnTaking(TurnSettings(answer_ms=1600), asks)
    m.agent(Agent.SPEAKING)
    m.speech_started(5000 * MS)
    assert m.speech_ended(5300 * MS) == [act.EndUtterance()]
    interrupted = m.words("Wait, I wanted to", final=True)
    assert interrupted == [act.Interrupt(), act.Judge("Wait, I wanted to"), act.PrepareReply("Wait, I wanted to")]
    m.agent(Agent.LISTENING)
    assert m.judged(0.0) == [] and m.received(6899 * MS, 5300 * MS) == []
    assert m.received(6900 * MS, 5300 * MS) == [act.EndTurn("Wait, I wanted to", 5300 * MS)]
    m = TurnTaking(TurnSettings(), asks)
    m.agent(Agent.SPEAKING)
    m.speech_started(5000 * MS)
    m.speech_ended(5300 * MS)
    assert m.agent(Agent.LISTENING) == [act.Judge("")], "it ended by itself"


@pytest.mark.parametrize(("text", "backchannel"), [("", False), ("mm-hm", True)], ids=["a cough", "a backchannel"])
@pytest.mark.parametrize("agent", [Agent.THINKING, Agent.SPEAKING])
def test_what_takes_no_floor_costs_the_agent_nothing(text: str, backchannel: bool, agent: Agent) -> None:
    m = _over_agent(agent)
    m.words(text, final=False, backchannel=backchannel)
    assert m.received(5120 * MS, 5100 * MS) == [act.SettleWords()]
    assert m.speech_ended(5100 * MS) == [act.EndUtterance(settled=True)]
    assert m.received(5400 * MS, 5100 * MS) == []
    assert m.words(text, final=True, backchannel=backchannel) == [act.DropUtterance(), act.ResumeReply()]
    assert m.caller is Caller.SILENT


def test_a_backchannel_that_becomes_a_sentence_takes_the_floor() -> None:
    m = _over_agent()
    m.words("yeah", final=False, backchannel=True)
    assert m.speech_ended(5300 * MS) == [act.EndUtterance()]
    assert m.speech_started(5500 * MS) == [act.StartUtterance(5400 * MS)], "held already"
    assert m.words("yeah", final=False, backchannel=True) == []
    assert m.speech_ended(5900 * MS) == [act.EndUtterance()]
    assert m.received(6300 * MS, 5900 * MS) == [], "an answer may not begin before it is known whose turn it is"
    assert m.words("yeah but why", final=True) == [act.Interrupt(), act.EndTurn("yeah but why", 5900 * MS)]


def test_the_agent_does_not_wait_for_late_words_but_they_count() -> None:
    def waited() -> TurnTaking:
        m = _over_agent()
        m.speech_ended(5300 * MS)
        assert m.received(6299 * MS, 5300 * MS) == []
        assert m.received(6300 * MS, 5300 * MS) == [act.ResumeReply()]
        assert m.received(6320 * MS, 5300 * MS) == []
        return m

    assert waited().words("stop", final=True) == [act.Interrupt(), act.EndTurn("stop", 5300 * MS)]
    assert waited().words("", final=True) == [act.DropUtterance(), act.ResumeReply()]
    m = waited()
    assert m.speech_started(7000 * MS) == [act.StartUtterance(6900 * MS)], (
        "what was waited for may be noise, and so may this"
    )
    assert m.received(7980 * MS, 7980 * MS) == []
    assert m.words("stop it", final=False) == [act.Interrupt()]
    m = waited()
    m.words("", final=True)
    assert m.speech_started(7000 * MS) == [act.HoldReply(), act.StartUtterance(6900 * MS)], (
        "it was noise, this may not be"
    )
    m = waited()
    assert m.agent(Agent.LISTENING) == []
    assert m.words("yeah", final=True, backchannel=True) == [act.EndTurn("yeah", 5300 * MS)], "nobody else speaks"


def test_a_sound_that_may_become_speech_ducks_the_agent() -> None:
    m = _machine()
    assert m.received(1000 * MS, 0, stirring=True) == [], "nobody speaks"
    m.agent(Agent.SPEAKING)
    assert m.received(5020 * MS, 5020 * MS, stirring=True) == [act.DuckReply()]
    assert m.received(5040 * MS, 5040 * MS, stirring=True) == []
    assert m.received(5060 * MS, 5040 * MS) == [act.UnduckReply()]
    assert m.received(5080 * MS, 5040 * MS, stirring=True) == [], "a gap in which it may go on is none"
    assert m.received(5100 * MS, 5100 * MS, stirring=True) == [act.DuckReply()]
    assert m.speech_started(5100 * MS) == [act.HoldReply(), act.StartUtterance(5000 * MS)]
    m.speech_ended(5200 * MS)
    assert m.words("", final=True) == [act.DropUtterance(), act.ResumeReply()]
    assert m.received(5400 * MS, 0) == [], "resumed as loud as ever"
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    assert m.received(5020 * MS, 0, stirring=True) == []


# --- work behind the silence


def test_words_are_asked_for_in_every_silence_and_answered_while_it_lasts() -> None:
    m = TurnTaking(TurnSettings(endpoint_ms=300, preroll_ms=100))
    m.speech_started(1000 * MS)
    assert m.received(2019 * MS, 2000 * MS) == []
    assert m.received(2020 * MS, 2000 * MS) == [act.SettleWords()]
    assert m.words("I", final=False, settled=False) == []
    assert m.words("I want", final=False, settled=True) == [act.PrepareReply("I want")]
    assert m.received(2060 * MS, 2050 * MS) == [], "the caller goes on"
    assert m.words("I want", final=False, settled=True) == []
    assert m.received(2080 * MS, 2060 * MS) == [act.SettleWords()]
    assert m.words("I want tea", final=False, settled=False) == [act.RevokeReply()]
    assert m.words("I want tea", final=False, settled=True) == [act.PrepareReply("I want tea")]
    assert m.speech_ended(2060 * MS) == [act.EndUtterance(settled=True)]
    assert m.words("I want tea", final=True) == []
    assert m.received(2360 * MS, 2060 * MS) == [act.EndTurn("I want tea", 2060 * MS)]


def test_an_answer_is_prepared_no_sooner_than_it_has_to_be() -> None:
    m = TurnTaking(TurnSettings(endpoint_ms=400))
    for ms in (90, 140, 100):
        m.endpointing.answer_took(ms)
    m.speech_started(1000 * MS)
    m.received(2020 * MS, 2000 * MS)
    assert m.words("hi", final=False, settled=True) == []
    assert m.received(2239 * MS, 2000 * MS) == []
    assert m.received(2240 * MS, 2000 * MS) == [act.PrepareReply("hi")], "140 ms and a frame before the end"


def test_what_is_expected_to_go_on_is_answered_late_and_what_is_over_at_once() -> None:
    def settled(probability: float) -> TurnTaking:
        m = TurnTaking(TurnSettings(answer_ms=250), Asks.AGAIN)
        m.speech_started(1000 * MS)
        m.received(2020 * MS, 2000 * MS)
        assert m.words("I", final=False, settled=True) == [act.Judge("I")], "there are words to judge by"
        assert m.judged(probability) == ([act.PrepareReply("I")] if probability == 1 else [])
        m.speech_ended(2000 * MS)
        m.words("I", final=True)
        return m

    assert settled(1.0).received(2200 * MS, 2000 * MS) == [act.EndTurn("I", 2000 * MS)]
    m = settled(0.0)
    assert m.received(3349 * MS, 2000 * MS) == []
    assert m.received(3350 * MS, 2000 * MS) == [act.PrepareReply("I")]
    m = settled(0.5)
    assert m.received(2149 * MS, 2000 * MS) == []
    assert m.received(2150 * MS, 2000 * MS) == [act.PrepareReply("I")]


def test_without_interruptions_speech_waits_for_its_turn() -> None:
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    assert m.speech_started(5000 * MS) == []
    assert m.agent(Agent.LISTENING) == [act.StartUtterance(4900 * MS)]
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    m.speech_started(5000 * MS)
    assert m.speech_ended(6000 * MS) == [] and m.agent(Agent.LISTENING) == []


# --- an end-of-turn engine


def _asking(asks: Asks = Asks.AGAIN) -> TurnTaking:
    """Return a machine with an engine whose caller speaks from 1000 to 2000 ms; it waits for 200, 400 or 1600 ms.

    An answer takes so long that it is prepared at once.
    """
    machine = TurnTaking(TurnSettings(answer_ms=1600), asks)
    machine.speech_started(1000 * MS)
    assert machine.received(2099 * MS, 2000 * MS) == [act.SettleWords()], "no silence yet that is worth a judgment"
    return machine


def _judged(probability: float | None, text: str = "I want to") -> TurnTaking:
    machine = _asking()
    machine.speech_ended(2000 * MS)
    assert machine.words(text, final=True) == [act.Judge(text), act.PrepareReply(text)]
    assert machine.judged(probability) == []
    return machine


@pytest.mark.parametrize(
    ("probability", "wait_ms"), [(1.0, 200), (0.75, 300), (0.5, 400), (0.25, 1000), (0.0, 1600), (None, 400)]
)
def test_a_judgment_sets_how_long_a_silence_ends_the_turn(probability: float | None, wait_ms: int) -> None:
    m = _judged(probability)
    assert m.received((1999 + wait_ms) * MS, 2000 * MS) == []
    assert m.received((2000 + wait_ms) * MS, 2000 * MS) == [act.EndTurn("I want to", 2000 * MS)]


def test_the_engine_is_asked_at_the_first_silence_and_once_for_each_wording() -> None:
    m = _asking()
    assert m.words("I want", final=False) == []
    assert m.received(2100 * MS, 2000 * MS) == [act.Judge("I want")]
    assert m.received(2120 * MS, 2000 * MS) == []
    assert m.words("I want to", final=False) == [act.Judge("I want to")]
    assert m.speech_ended(2000 * MS) == [act.EndUtterance(settled=True)]
    assert m.words("I want to", final=True) == [act.PrepareReply("I want to")]


def test_an_engine_that_goes_by_the_sound_is_asked_once_for_each_silence() -> None:
    m = _asking(Asks.ONCE)
    assert m.received(2100 * MS, 2000 * MS) == [act.Judge("")]
    assert m.speech_ended(2000 * MS) == [act.EndUtterance(settled=True)]
    assert m.words("I want to", final=True) == [act.PrepareReply("I want to")]
    assert m.judged(1.0) == []
    assert m.speech_started(2300 * MS) == [act.StartUtterance(2000 * MS)]
    assert m.received(2500 * MS, 2400 * MS) == [act.SettleWords(), act.Judge("I want to")]


def test_a_silence_within_speech_is_forgotten_and_so_is_what_was_thought_of_it() -> None:
    m = _asking()
    assert m.received(2100 * MS, 2000 * MS) == [act.Judge("")]
    assert m.received(2150 * MS, 2150 * MS) == []
    assert m.judged(1.0) == [], "an answer to a question that is void"
    assert m.speech_ended(2500 * MS) == [act.EndUtterance(), act.Judge("")], "of silence nobody told before"
    m.words("", final=False)
    assert m.words("hi", final=True) == [act.Judge("hi"), act.PrepareReply("hi")]
    assert m.judged(None) == []
    assert m.received(2899 * MS, 2500 * MS) == []
    assert m.received(2900 * MS, 2500 * MS) == [act.EndTurn("hi", 2500 * MS)]


def test_words_that_come_after_the_silence_are_judged_before_the_turn_ends() -> None:
    m = _asking()
    m.speech_ended(2000 * MS)
    m.judged(0.5)
    assert m.received(2600 * MS, 2000 * MS) == []
    assert m.words("I want to", final=True) == [act.Judge("I want to"), act.PrepareReply("I want to")]
    assert m.received(2620 * MS, 2000 * MS) == [], "not before it is judged"
    assert m.judged(0.0) == []
    assert m.received(3599 * MS, 2000 * MS) == []
    assert m.received(3600 * MS, 2000 * MS) == [act.EndTurn("I want to", 2000 * MS)]


def test_a_judgment_that_comes_after_its_silence_ends_the_turn() -> None:
    m = _asking()
    m.speech_ended(2000 * MS)
    m.words("hi", final=True)
    assert m.received(2300 * MS, 2000 * MS) == []
    assert m.judged(0.9) == [act.EndTurn("hi", 2000 * MS)]


def test_the_longest_silence_ends_the_turn_without_a_judgment() -> None:
    m = _asking()
    m.speech_ended(2000 * MS)
    m.words("hi", final=True)
    assert m.received(3599 * MS, 2000 * MS) == []
    assert m.received(3600 * MS, 2000 * MS) == [act.EndTurn("hi", 2000 * MS)]


def test_a_barge_in_is_judged_once_it_has_the_floor() -> None:
    m = TurnTaking(TurnSettings(), Asks.AGAIN)
    m.agent(Agent.SPEAKING)
    m.speech_started(5000 * MS)
    assert m.received(5240 * MS, 5100 * MS) == [act.SettleWords()]
    assert m.words("stop", final=False) == [act.Interrupt()]
    m.agent(Agent.LISTENING)
    assert m.received(5260 * MS, 5100 * MS) == [act.Judge("stop")]


def test_a_press_is_not_judged() -> None:
    m = TurnTaking(TurnSettings(), Asks.AGAIN)
    m.pressed(1000 * MS)
    m.received(1100 * MS, 0)
    assert m.words("hi", final=False) == [] and m.received(3000 * MS, 1500 * MS) == []
    m.released(3000 * MS)
    assert m.words("hi you", final=True) == [act.EndTurn("hi you", 3000 * MS)]


def test_without_a_choice_of_silence_there_is_nothing_to_ask() -> None:
    m = TurnTaking(TurnSettings(endpoint_min_ms=300, endpoint_ms=300, endpoint_max_ms=300), Asks.AGAIN)
    m.speech_started(1000 * MS)
    assert m.received(2100 * MS, 2000 * MS) == [act.SettleWords()]
    assert m.speech_ended(2000 * MS) == [act.EndUtterance(settled=True)]
    assert m.words("and", final=True) == [act.PrepareReply("and")]
    assert m.received(2300 * MS, 2000 * MS) == [act.EndTurn("and", 2000 * MS)]


# --- going on and being cut


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
    assert m.words("yes", final=True, backchannel=True) == [act.PrepareReply("yes")]


def test_a_press_is_a_turn_from_the_button_to_the_button() -> None:
    m = _machine()
    assert m.pressed(1000 * MS) == [] and m.pressed(1010 * MS) == []
    assert m.received(1099 * MS, 0) == []
    assert m.received(1100 * MS, 0) == [act.StartUtterance(900 * MS)]
    assert m.speech_started(1200 * MS) == [] and m.speech_ended(1300 * MS) == []
    assert m.received(9000 * MS, 1300 * MS) == []
    assert m.words("hi", final=False) == []
    assert m.released(9000 * MS) == [act.EndUtterance()] and m.released(9010 * MS) == []
    assert m.received(9500 * MS, 9100 * MS) == []
    assert m.words("hi", final=True) == [act.EndTurn("hi", 9000 * MS)]
    assert m.caller is Caller.SILENT and m.released(9600 * MS) == []


def test_a_press_without_words_is_no_turn() -> None:
    m = _machine()
    m.pressed(1000 * MS)
    m.received(1100 * MS, 0)
    m.released(2000 * MS)
    assert m.words("", final=True) == [act.DropUtterance()] and m.caller is Caller.SILENT


def test_a_press_too_short_to_say_anything_is_not_transcribed() -> None:
    m = _machine()
    m.pressed(1000 * MS)
    assert m.received(1099 * MS, 0) == []
    assert m.released(1099 * MS) == [act.DropUtterance()] and m.caller is Caller.SILENT


def test_a_press_interrupts_at_once() -> None:
    for agent in (Agent.THINKING, Agent.SPEAKING):
        m = _machine()
        m.agent(agent)
        assert m.pressed(5000 * MS) == [act.Interrupt()]
        assert m.agent(Agent.LISTENING) == []
        assert m.received(5100 * MS, 0) == [act.StartUtterance(4900 * MS)]


def test_a_press_takes_over_the_utterance_that_is_open() -> None:
    m = _machine()
    m.agent(Agent.SPEAKING)
    m.speech_started(5000 * MS)
    assert m.pressed(5100 * MS) == [act.Interrupt()]
    assert m.received(6000 * MS, 6000 * MS) == []
    assert m.released(7000 * MS) == [act.EndUtterance()]


def test_a_press_in_a_pause_goes_on_with_the_turn() -> None:
    m = _paused("hi")
    assert m.pressed(2100 * MS) == []
    assert m.received(2200 * MS, 2000 * MS) == [act.StartUtterance(2000 * MS)]
    assert m.words("hi you", final=False) == [act.RevokeReply()]
    assert m.released(3000 * MS) == [act.EndUtterance()]
    assert m.words("hi you", final=True) == [act.EndTurn("hi you", 3000 * MS)]


def test_the_button_tipped_in_a_pause_ends_the_turn() -> None:
    m = _paused("hi")
    m.pressed(2050 * MS)
    assert m.released(2060 * MS) == [act.EndTurn("hi", 2000 * MS)]


def test_a_second_press_before_the_words_goes_on_with_the_turn_and_repeats_nothing() -> None:
    m = _machine()
    m.pressed(1000 * MS)
    m.received(1100 * MS, 0)
    m.released(2000 * MS)
    m.pressed(2050 * MS)
    assert m.words("one", final=True) == []
    assert m.received(2150 * MS, 0) == [act.StartUtterance(2000 * MS)]
    m.released(3000 * MS)
    assert m.words("one two", final=True) == [act.EndTurn("one two", 3000 * MS)]


def test_a_long_press_is_cut_into_utterances_and_a_stuck_button_released() -> None:
    m = _machine(max_utterance_ms=1000, max_press_ms=1500)
    m.pressed(0)
    assert m.received(100 * MS, 0) == [act.StartUtterance(0)]
    assert m.received(1000 * MS, 0) == [act.EndUtterance(), act.StartUtterance(1000 * MS)]
    assert m.received(1500 * MS, 0) == [act.CutSpeech(), act.EndUtterance()]
    assert m.words("endless", final=True) == [act.EndTurn("endless", 1500 * MS)]


def test_a_button_is_stuck_only_after_it_was_long_down() -> None:
    m = _machine(max_press_ms=1500)
    m.speech_started(0)
    m.pressed(1000 * MS)
    assert m.received(2499 * MS, 0) == []
    assert m.received(2500 * MS, 0) == [act.CutSpeech(), act.EndUtterance()]


def _speaking_again_before_the_words() -> TurnTaking:
    m = _machine()
    m.pressed(1000 * MS)
    m.received(1100 * MS, 0)
    m.released(2000 * MS)
    m.speech_started(2300 * MS)
    return m


def test_a_press_takes_speech_that_waited_along() -> None:
    m = _speaking_again_before_the_words()
    assert m.pressed(2400 * MS) == []
    assert m.received(2500 * MS, 2500 * MS) == [act.StartUtterance(2200 * MS)]
    assert m.released(3000 * MS) == [act.EndUtterance()]
    assert m.words("hi you", final=True) == [act.EndTurn("hi you", 3000 * MS)]
    assert m.agent(Agent.THINKING) == []


def test_a_slip_of_the_finger_changes_nothing_of_what_is_being_said() -> None:
    m = _machine()
    m.speech_started(1000 * MS)
    assert m.pressed(2000 * MS) == [] and m.slipped(2099 * MS) and not m.slipped(2100 * MS)
    assert m.released(2040 * MS) == [] and m.caller is Caller.SPEAKING
    assert m.received(4000 * MS, 4000 * MS) == []
    assert m.speech_ended(4000 * MS) == [act.EndUtterance()]
    assert m.words("all of it", final=True) == [act.PrepareReply("all of it")]
    m = _speaking_again_before_the_words()
    m.pressed(2400 * MS)
    assert m.released(2450 * MS) == []
    assert m.words("hi", final=True) == [act.EndTurn("hi", 2000 * MS)]
    assert m.agent(Agent.THINKING) == [act.HoldReply(), act.StartUtterance(2200 * MS)]


def test_typed_words_are_the_turn_and_what_is_said_on_is_new_speech() -> None:
    for press in (False, True):
        m = _machine()
        _ = m.pressed(1000 * MS) if press else m.speech_started(1000 * MS)
        m.received(1500 * MS, 1500 * MS)
        typed = [act.Interrupt(), act.CutSpeech(), act.DropUtterance(), act.EndTurn("typed", None)]
        assert m.typed("typed", 2000 * MS) == typed
        m.agent(Agent.THINKING)
        assert m.speech_started(2000 * MS) == [act.HoldReply(), act.StartUtterance(2000 * MS)]
        assert m.released(9000 * MS) == []


def test_speech_after_the_release_waits_for_the_answer_and_is_then_a_barge_in() -> None:
    def released() -> TurnTaking:
        m = _machine()
        m.pressed(1000 * MS)
        m.received(1100 * MS, 0)
        m.released(2000 * MS)
        assert m.speech_started(2300 * MS) == []
        return m

    start = act.StartUtterance(2200 * MS)
    m = released()
    assert m.words("hi", final=True) == [act.EndTurn("hi", 2000 * MS)]
    assert m.agent(Agent.THINKING) == [act.HoldReply(), start]
    assert m.received(3310 * MS, 3310 * MS) == [act.Interrupt()]
    m = released()
    assert m.speech_ended(2900 * MS) == []
    m.words("hi", final=True)
    assert m.agent(Agent.THINKING) == [act.HoldReply(), start, act.EndUtterance()]
    assert m.caller is Caller.PAUSED and m.words("stop", final=True) == [act.Interrupt(), act.PrepareReply("stop")]
    m = released()
    assert m.speech_ended(2400 * MS) == []
    m.words("hi", final=True)
    assert m.agent(Agent.THINKING) == [act.HoldReply(), start, act.EndUtterance()]
    assert m.words("", final=True) == [act.DropUtterance(), act.ResumeReply()]
    m = released()
    assert m.words("", final=True) == [act.DropUtterance(), start] and m.caller is Caller.SPEAKING


def test_a_press_over_an_agent_that_may_not_be_interrupted_is_answered_after_it() -> None:
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    assert m.pressed(5000 * MS) == []
    assert m.received(5100 * MS, 0) == [act.StartUtterance(4900 * MS)]
    assert m.released(6000 * MS) == [act.EndUtterance()]
    assert m.words("hi", final=True) == []
    assert m.agent(Agent.LISTENING) == [act.EndTurn("hi", 6000 * MS)]


def test_a_reply_that_ends_during_the_press_changes_nothing() -> None:
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    m.pressed(5000 * MS)
    m.received(5100 * MS, 0)
    assert m.agent(Agent.LISTENING) == []
    m.released(6000 * MS)
    assert m.words("hi", final=True) == [act.EndTurn("hi", 6000 * MS)]


def test_typed_words_replace_the_turn_that_is_spoken() -> None:
    m = _paused()
    assert m.typed("typed", 2100 * MS) == [act.Interrupt(), act.DropUtterance(), act.EndTurn("typed", None)]
    assert m.received(9000 * MS, 2000 * MS) == []
    assert m.speech_started(2120 * MS) == [act.StartUtterance(2100 * MS)]


def test_typed_words_wait_for_an_agent_that_may_not_be_interrupted() -> None:
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    assert m.typed("one", 5000 * MS) == [] and m.typed("two", 5100 * MS) == []
    assert m.agent(Agent.LISTENING) == [act.EndTurn("one two", None)]
    m.agent(Agent.THINKING)
    m.typed("x" * 20_000, 6000 * MS)
    m.typed("end", 6000 * MS)
    [turn] = m.agent(Agent.LISTENING)
    assert isinstance(turn, act.EndTurn) and len(turn.text) == 16_384 and turn.text.endswith("x end")


def test_what_is_typed_and_said_while_the_agent_is_let_finish_is_one_turn() -> None:
    m = _machine(allow_interruptions=False)
    m.agent(Agent.SPEAKING)
    m.typed("typed", 5000 * MS)
    m.pressed(5100 * MS)
    m.received(5200 * MS, 0)
    assert m.agent(Agent.LISTENING) == []
    m.released(6000 * MS)
    assert m.words("said", final=True) == [act.EndTurn("typed said", 6000 * MS)]


def test_a_turn_that_is_too_long_is_answered_and_what_follows_is_new() -> None:
    m = _machine(max_turn_ms=10_000)
    m.speech_started(1000 * MS)
    assert m.received(10_999 * MS, 10_999 * MS) == []
    assert m.received(11_000 * MS, 11_000 * MS) == [act.CutSpeech(), act.EndUtterance()]
    assert m.speech_started(11_300 * MS) == []
    assert m.words("long", final=True) == [act.EndTurn("long", 11_000 * MS)]
    assert m.agent(Agent.THINKING) == [act.HoldReply(), act.StartUtterance(11_200 * MS)]


def test_a_turn_that_becomes_too_long_in_a_pause_is_over() -> None:
    m = _machine(max_turn_ms=1100)
    m.speech_started(1000 * MS)
    m.speech_ended(2000 * MS)
    m.words("hi", final=True)
    assert m.received(2100 * MS, 2000 * MS, stirring=True) == [act.CutSpeech(), act.EndTurn("hi", 2000 * MS)]


def test_deaf_ears_lose_what_is_being_said_and_nothing_else() -> None:
    m = _machine()
    m.speech_started(0)
    lost = [act.DropUtterance(), act.RevokeReply(), act.ResumeReply(), act.UnduckReply()]
    assert m.deafened(500 * MS) == lost
    m = _paused("said to the end")
    assert m.deafened(2100 * MS) == [act.EndTurn("said to the end", 2000 * MS)]
    m = _machine()
    m.pressed(1000 * MS)
    m.received(1100 * MS, 0)
    assert m.deafened(2000 * MS) == [act.EndUtterance()]
    assert m.deafened(2000 * MS) == []
    assert m.words("hi", final=True) == [act.EndTurn("hi", 2000 * MS)]
