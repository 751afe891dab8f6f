"""Speech over the agent: what takes its turn, and what costs it nothing. Whole conversations in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pipeline.agents import Agent
from pipeline.backchannel import WORDS, is_backchannel
from pipeline.events import (
    EngineFailed,
    ReplyClauseStarted,
    ReplyFinished,
    ReplyInterrupted,
    TranscriptUpdated,
    TurnEnded,
)
from pipeline.gain import FADE_MS
from pipeline.reply import Patience
from pipeline.session import SessionSettings
from pipeline.speech import SpeechSettings
from pipeline.turn_settings import TurnSettings

from .fakes import RATE_HZ, FakeLlm, FakeStt, engines
from .script import FRAME_MS, Played, play

SETTINGS = SessionSettings(SpeechSettings(pause_ms=100), TurnSettings(endpoint_ms=200))
ANSWER = FakeLlm().text
ONSET_MS = 90 * FRAME_MS
"""The agent is speaking by then."""


def over_it(speech: str, *texts: str, **stt: object) -> Played:
    """Say something, and then ``speech`` over the answer, of which speech-to-text says ``texts``."""
    script = "#" * 30 + "." * 60 + speech + "." * 400
    return play(script, engines(FakeStt(("tell me", *texts), **stt)), settings=SETTINGS)  # type: ignore[arg-type]


def plain() -> Played:
    return play("#" * 30 + "." * 460, engines(FakeStt(("tell me",))), settings=SETTINGS)


def sounding(played: Played) -> int:
    """Count the samples that are not silent."""
    return sum(int((frame.pcm != 0).sum()) for _, frame in played.frames)


def costs_nothing(played: Played, holds: int) -> None:
    """Check that the agent said all of it, each sample once but for the 5 ms in which it fell silent.

    Of such a fade the last sample is silent, and so is the first of the one back in.
    """
    assert played.all(ReplyInterrupted) == [] and played.all(ReplyFinished) == [ReplyFinished(1, ANSWER)]
    assert [turn.text for turn in played.all(TurnEnded)] == ["tell me"]
    assert [message.text for message in played.history] == ["tell me", ANSWER]
    assert sounding(played) == sounding(plain()) + holds * (RATE_HZ * FADE_MS // 1000 - 2)


@pytest.mark.parametrize("text", ["", "...", "♪", "Mm-hm.", "yeah", "Okay, okay."])
@pytest.mark.parametrize("partials", [False, True], ids=["words at the end", "words as they come"])
@pytest.mark.parametrize("frames", [3, 10, 30])
def test_a_cough_and_a_backchannel_cost_the_agent_nothing(text: str, partials: bool, frames: int) -> None:
    played = over_it("#" * frames, text, partials=partials)
    costs_nothing(played, holds=1)
    onset_s, pause_ms = ONSET_MS, frames * FRAME_MS + SETTINGS.speech.pause_ms
    silent = [ms for ms, frame in played.frames if frame.silent and onset_s + 100 < ms < onset_s + pause_ms]
    assert len(silent) >= pause_ms / FRAME_MS - 6, "it was paused meanwhile"
    assert min(ms for ms in played.audible() if ms > onset_s + 120) == onset_s + pause_ms


def test_a_click_is_not_even_a_pause() -> None:
    played = over_it("#" * 2, "never asked for")
    costs_nothing(played, holds=0)
    levels = [int(frame.pcm[-1]) for ms, frame in played.frames if ONSET_MS < ms <= ONSET_MS + 40]
    assert all(0 < level < 9_000 for level in levels), "but it is softer while it may be speech"


@pytest.mark.parametrize("partials", [False, True], ids=["words at the end", "words as they come"])
def test_words_take_the_floor_from_an_agent_that_fell_silent_long_before(partials: bool) -> None:
    played = over_it("#" * 40, "no please stop", partials=partials, s_per_word=0.5)
    [cut] = played.all(ReplyInterrupted)
    assert ANSWER.startswith(cut.heard) and cut.heard
    spoken_ms = played.at(ReplyInterrupted) - ONSET_MS
    assert spoken_ms == (200 if partials else 900), "with the first word; else with the words of the pause"
    assert max(ms for ms in played.audible() if ms < ONSET_MS + 900) <= ONSET_MS + 80 + FRAME_MS
    assert [turn.text for turn in played.all(TurnEnded)] == ["tell me", "no please stop"]


@pytest.mark.parametrize("hears_pauses", [False, True])
@pytest.mark.parametrize("delay_s", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(("on", "off"), [(10, 15), (15, 15), (15, 35)])
def test_a_dog_that_barks_does_not_silence_the_agent(on: int, off: int, delay_s: float, hears_pauses: bool) -> None:
    """No bark is long, and the next one comes before it is known that the last one was none of words."""
    stt = FakeStt(("",), delay_s=delay_s, hears_pauses=hears_pauses)
    script = "." * 100 + ("#" * on + "." * off) * (1000 // (on + off)) + "." * 2500
    played = play(script, engines(stt), settings=SETTINGS, agent=Agent("a", "A", greeting="word " * 150))
    assert played.all(ReplyInterrupted) == [] and len(played.all(ReplyFinished)) == 1
    audible = played.audible()
    assert max(later - ms for ms, later in pairwise(audible)) <= 2_000 + FRAME_MS
    assert [message.text for message in played.history] == [("word " * 150).strip()]


def test_an_engine_that_hears_pauses_lets_the_agent_go_on_sooner() -> None:
    gone_on_ms = []
    for hears_pauses in (True, False):
        played = over_it("#" * 10, "mm-hm", hears_pauses=hears_pauses, delay_s=0.3)
        costs_nothing(played, holds=1)
        gone_on_ms.append(min(ms for ms in played.audible() if ms > ONSET_MS + 120) - ONSET_MS - 200)
    assert gone_on_ms == [320, 400], "300 ms after the first silence, not after the end of speech"


@pytest.mark.parametrize("text", [".", "...", "…", "*", "-", " ", "♪"])
def test_what_is_written_without_a_word_is_no_turn(text: str) -> None:
    played = play("#" * 30 + "." * 100 + "#" * 30 + "." * 200, engines(FakeStt((text, "hello")), FakeLlm("Hi.")))
    assert [turn.text for turn in played.all(TurnEnded)] == ["hello"]
    assert [update.text for update in played.all(TranscriptUpdated)] == ["hello", "hello"]


def test_a_backchannel_that_goes_on_takes_the_floor() -> None:
    played = over_it("#" * 15 + "." * 7 + "#" * 20, "Yeah.", "But why?", delay_s=0.2)
    assert [turn.text for turn in played.all(TurnEnded)] == ["tell me", "Yeah. But why?"]
    assert len(played.all(ReplyInterrupted)) == 1


def test_a_short_answer_to_a_question_is_one() -> None:
    llm = FakeLlm("Would you like to have a cup of tea with me?")
    stt = FakeStt(("tell me", "Yes."))
    played = play("#" * 30 + "." * 60 + "#" * 10 + "." * 300, engines(stt, llm), settings=SETTINGS)
    assert [turn.text for turn in played.all(TurnEnded)] == ["tell me", "Yes."]


GREETING = "Would you like the red one? It costs ten euros more than the blue one does, I am afraid."
NEXT_CLAUSE_MS = 1500


def answered(script: str, delay_s: float = 0.0, greeting: str = GREETING) -> list[str]:
    """Say "yes" over a greeting; return the turns."""
    played = play(script + "." * 400, engines(FakeStt(("yes",), delay_s)), agent=Agent("a", "A", greeting=greeting))
    return [turn.text for turn in played.all(TurnEnded)]


@pytest.mark.parametrize("after_ms", [-600, -100, 0, 100, 400, 700])
def test_a_question_is_answered_while_the_agent_already_goes_on(after_ms: int) -> None:
    script = "." * ((NEXT_CLAUSE_MS + after_ms) // FRAME_MS) + "#" * 20
    assert answered(script) == ["yes"]
    assert answered(script, greeting=GREETING.replace("?", ".")) == [], "of a statement it is a sign of attention"


def test_a_question_is_not_open_for_long() -> None:
    assert answered("." * ((NEXT_CLAUSE_MS + 1_200) // FRAME_MS) + "#" * 20) == []


@pytest.mark.parametrize("delay_s", [0.2, 0.9, 1.5, 2.5])
def test_an_answer_is_one_by_when_it_was_begun_not_by_when_its_words_came(delay_s: float) -> None:
    assert answered("." * 60 + "#" * 15, delay_s) == ["yes"]


def test_an_answer_stays_one_though_the_agent_went_on_and_the_caller_made_another_sound() -> None:
    script = "." * 60 + "#" * 15 + "." * 160 + "#" * 15
    assert answered(script, delay_s=4.0, greeting=f"{GREETING} {ANSWER} {ANSWER}") == ["yes yes"]


def test_a_question_that_is_asked_while_words_of_before_are_still_awaited_is_one() -> None:
    greeting = f"{ANSWER} {GREETING} {ANSWER}"
    script = "." * 25 + "#" * 10 + "." * 220 + "#" * 15
    assert answered(script, delay_s=5.0, greeting=greeting) == ["yes yes"]
    assert answered(script, delay_s=5.0, greeting=greeting.replace("?", ".")) == []


def test_a_cough_in_the_pause_in_which_the_answer_is_prepared_asks_nothing() -> None:
    stt = FakeStt(("tell me", "", "mm-hm"))
    played = play("#" * 30 + "." * 8 + "#" * 5 + "." * 60 + "#" * 10 + "." * 400, engines(stt), settings=SETTINGS)
    assert played.all(ReplyInterrupted) == [] and [turn.text for turn in played.all(TurnEnded)] == ["tell me"]
    assert stt.calls == 3 and played.session is not None and played.session.revoked_replies == 0


def test_a_question_about_which_the_caller_only_coughed_is_not_asked_for_ever() -> None:
    stt = FakeStt(("", "yes"))
    script = "." * 60 + "#" * 15 + "." * 150 + "#" * 15 + "." * 400
    assert play(script, engines(stt), agent=Agent("a", "A", greeting=GREETING)).all(TurnEnded) == []
    assert stt.calls == 2


def test_a_short_question_that_is_spoken_in_one_breath_with_what_follows_is_one_while_it_lasts() -> None:
    greeting = "Right then. Shall I book it? It costs ten euros more than the blue one does, as you know."
    played = play("." * 400, agent=Agent("a", "A", greeting=greeting))
    [right, question] = [event.text for event in played.all(ReplyClauseStarted)]
    assert (right, question[:16]) == ("Right then.", "Shall I book it?") and question.endswith("know.")
    turns = [answered("." * (ms // FRAME_MS) + "#" * 20, greeting=greeting) for ms in (600, 1300, 1900, 3500)]
    assert turns == [["yes"], ["yes"], ["yes"], []]


@pytest.mark.parametrize("text", ["yes", "Okay.", "mm-hm"])
def test_nobody_shows_attention_to_an_agent_that_is_not_to_be_heard_yet(text: str) -> None:
    stt, llm = FakeStt(("hmm", text)), FakeLlm("All right then.", ttft_s=1.0)
    script = "." * 150 + "#" * 15 + "." * 30 + "#" * 20 + "." * 400
    played = play(script, engines(stt, llm), agent=Agent("a", "A", greeting="Shall I book it?"))
    assert [message.text for message in played.history] == ["Shall I book it?", f"hmm {text}", "All right then."]
    assert [cut.heard for cut in played.all(ReplyInterrupted)] == [""]


def test_the_agent_goes_on_where_words_take_too_long_and_is_stopped_by_them_when_they_come() -> None:
    slow = SessionSettings(SETTINGS.speech, TurnSettings(endpoint_ms=200, verdict_ms=400), Patience(stt_s=3.0))
    stt = FakeStt(("tell me", "stop it"), delay_s=1.0)
    played = play("#" * 30 + "." * 100 + "#" * 10 + "." * 300, engines(stt), settings=slow)
    onset_ms = 130 * FRAME_MS
    [(ms, cut)] = [(ms, event) for ms, event in played.events if isinstance(event, ReplyInterrupted)]
    assert ms == onset_ms + 200 + 100 + 1000 and ANSWER.startswith(cut.heard)
    between = [ms for ms in played.audible() if onset_ms + 200 < ms < onset_ms + 1300]
    assert min(between) == onset_ms + 200 + 400


def test_without_speech_to_text_an_agent_can_still_be_stopped() -> None:
    played = play("#" * 30 + "." * 60 + "#" * 5 + "." * 60 + "#" * 60 + "." * 100, engines(FakeStt(fail=OSError())),
                  settings=SETTINGS, agent=Agent("a", "A", greeting=ANSWER))  # fmt: skip
    assert {event.stage for event in played.all(EngineFailed)} == {"stt"}
    [cut] = played.all(ReplyInterrupted)
    assert cut.reply == 1 and ANSWER.startswith(cut.heard)


def test_the_words_of_what_was_nothing_go_from_the_captions() -> None:
    played = over_it("#" * 30, "mm-hm yeah", partials=True)
    captions = [event.text for event in played.all(TranscriptUpdated) if not event.final]
    assert captions[-2:] == ["mm-hm yeah", ""] and captions[0] == "tell"


@pytest.mark.parametrize(
    "text",
    [
        "mm-hm",
        "Mm-hmm.",
        "Mhm",
        "uh-huh",
        "Yeah.",
        "okay",
        "Oh, okay.",
        "right, right",
        "I see.",
        "That’s right",
        "hm",
        "mm, mm-hm",
        "uh huh uh huh",
        "mm mm-hm",
    ],
)
def test_signs_of_attention(text: str) -> None:
    assert is_backchannel(text, "en") and is_backchannel(text, "en-US") and is_backchannel(text, None)


@pytest.mark.parametrize(
    "text",
    ["", "no", "Stop.", "wait", "Okay, stop.", "yeah but", "yes?", "thank you", "hello", "yeah yeah yeah yeah yeah"],
)
def test_what_wants_the_floor(text: str) -> None:
    assert not is_backchannel(text, "en") and not is_backchannel(text, None)


@pytest.mark.parametrize(
    "text", ["uh-uh", "Uh uh.", "Uh-uh-uh!", "Mm-mm.", "mm mm", "Okay, uh-uh.", "Huh-uh", "Uh-oh", "M."]
)
def test_sounds_that_say_no_and_a_letter_are_no_signs_of_attention(text: str) -> None:
    assert not any(is_backchannel(text, language) for language in (*WORDS, "xx", None))


def test_a_sound_in_one_language_is_a_word_in_another() -> None:
    assert is_backchannel("Um...", "en") and is_backchannel("er", "en")
    for language in ("pt", "de", "nl", "xx"):
        assert not is_backchannel("Um.", language) and not is_backchannel("Er.", language)


@pytest.mark.parametrize("language", [None, "en", "ja", "zh"])
def test_a_stammering_recognizer_holds_nobody_up(language: str | None) -> None:
    """Each "m" could be a backchannel of its own: with what follows there would be n^4 ways to read them."""
    for text in ("m" * 4_000 + "x", "mm " * 4_000, "うん" * 2_000, "嗯" * 4_000):
        assert not is_backchannel(text, language)


def test_backchannels_are_those_of_the_language_that_is_spoken() -> None:
    assert is_backchannel("Ja, genau.", "de") and not is_backchannel("genau", "en")
    assert is_backchannel("はい、そうですね", "ja") and not is_backchannel("はいでも", "ja")
    assert is_backchannel("嗯,好的", "zh") and not is_backchannel("不好", "zh")
    assert is_backchannel("Mm-hm.", "xx") and not is_backchannel("okay", "xx"), "sounds are everyone's"
