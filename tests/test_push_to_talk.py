"""The talk button and typed words, in virtual time with exact latencies."""

from __future__ import annotations

import pytest

from pipeline.agents import Agent
from pipeline.audio import Pcm
from pipeline.events import (
    EngineFailed,
    ReplyAudioStarted,
    ReplyFinished,
    ReplyInterrupted,
    SpeechEnded,
    SpeechStarted,
    TranscriptUpdated,
    TurnEnded,
    TurnMeasured,
)
from pipeline.session import Session, SessionSettings
from pipeline.speech import SpeechSettings
from pipeline.turn_settings import TurnSettings

from .fakes import FakeLlm, FakeStt, LoudnessDetector, engines
from .script import FRAME_MS, Played, play

SETTINGS = SessionSettings(SpeechSettings(pause_ms=100), TurnSettings(endpoint_ms=200))
ANSWER = FakeLlm().text
PATIENT = Agent("a", "A", allow_interruptions=False)
S = 320
"""Samples a character."""


def said(played: Played) -> list[str]:
    return [event.text for event in played.all(TurnEnded)]


def test_the_turn_lasts_from_the_press_to_the_release_whatever_the_pauses() -> None:
    stt = FakeStt()
    pressed, released = 40, 40 + 30 + 50 + 10
    played = play(
        "." * pressed + "(" + "#" * 30 + "." * 50 + "#" * 10 + ")" + "." * 200, engines(stt), settings=SETTINGS
    )
    assert played.at(TurnEnded) == played.at(ReplyAudioStarted) == released * FRAME_MS
    assert said(played) == ["hello there"] and stt.calls == 1
    assert played.all(SpeechStarted) == [SpeechStarted(pressed * S)]
    assert played.all(SpeechEnded) == [SpeechEnded(released * S)]
    assert played.names().index("SpeechEnded") < played.names().index("TurnEnded")
    assert stt.frames[0].pts == pressed * S - 300 * 16
    assert stt.frames[-1].pts + S == released * S
    [measured] = played.all(TurnMeasured)
    assert (measured.endpoint_ms, measured.stt_ms, measured.first_audio_ms) == (0, 0, 0)


def test_the_turn_is_answered_the_moment_its_words_are_final() -> None:
    played = play("(" + "#" * 30 + ")" + "." * 200, engines(FakeStt(delay_s=0.3)), settings=SETTINGS)
    assert played.at(TurnEnded) == played.at(ReplyAudioStarted) == 600 + 300
    [measured] = played.all(TurnMeasured)
    assert (measured.endpoint_ms, measured.stt_ms) == (300, 300)


def test_a_whisper_that_no_detector_hears_is_a_turn_if_it_has_words() -> None:
    played = play("." * 10 + "(" + "." * 40 + ")" + "." * 200, settings=SETTINGS)
    assert said(played) == ["hello there"] and played.at(TurnEnded) == 50 * FRAME_MS


@pytest.mark.parametrize("length", [0, 3, 40])
def test_a_press_without_words_is_no_turn(length: int) -> None:
    stt = FakeStt(texts=("",))
    played = play("." * 10 + "(" + "." * length + ")" + "." * 100, engines(stt), settings=SETTINGS)
    assert said(played) == [] and played.audible() == []
    assert stt.calls == (1 if length == 40 else 0)


def test_the_reply_stops_at_the_press() -> None:
    stt = FakeStt(texts=("tell me", "stop"))
    script = "#" * 30 + "." * 60 + "(" + "." * 20 + "#" * 20 + ")" + "." * 300
    played = play(script, engines(stt), settings=SETTINGS)
    press_ms = 90 * FRAME_MS
    assert played.at(ReplyInterrupted) == press_ms
    assert [ms for ms in played.audible() if press_ms + FRAME_MS < ms < press_ms + 40 * FRAME_MS] == []
    assert said(played) == ["tell me", "stop"]
    assert played.at(TurnEnded, 1) == played.at(ReplyAudioStarted, 1) == press_ms + 40 * FRAME_MS
    assert played.history[1].text == played.all(ReplyInterrupted)[0].heard


def release_early(session: Session) -> None:
    session.end_speech(in_flight_ms=150)


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_what_a_release_overtook_belongs_to_the_turn(delay_s: float) -> None:
    """Released at 601 ms, 8 frames (160 ms) before the last of what was said until then came in."""
    stt = FakeStt(delay_s=delay_s)
    script = "(" + "#" * 60 + "." * 300
    played = play(script, engines(stt), settings=SETTINGS, at=(601, release_early))
    assert played.at(TurnEnded) == 760 + 1000 * delay_s and said(played) == ["hello there"]
    assert played.all(SpeechEnded) == [SpeechEnded(38 * S)] and stt.frames[-1].pts + S == 38 * S
    assert played.all(ReplyInterrupted) == [], "what comes after that trails"


def test_pressed_again_before_it_was_all_heard_the_button_was_never_released() -> None:
    script = "(" + "#" * 33 + "(" + "#" * 60 + ")" + "." * 300
    played = play(script, settings=SETTINGS, at=(601, release_early))
    assert said(played) == ["hello there"] and played.at(TurnEnded) == 93 * FRAME_MS
    assert len(played.all(SpeechStarted)) == 1 and played.all(SpeechEnded) == [SpeechEnded(93 * S)]


def test_typed_words_while_a_release_waits_are_the_turn() -> None:
    played = play("(" + "#" * 33 + "T" + "." * 300, settings=SETTINGS, at=(601, release_early))
    assert said(played) == ["typed"] and played.all(SpeechEnded) == [SpeechEnded(33 * S)]


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("trailing", [1, 3, 5, 20, 60])
def test_speech_that_trails_after_the_release_neither_belongs_to_the_turn_nor_interrupts(
    trailing: int, delay_s: float
) -> None:
    stt = FakeStt(delay_s=delay_s)
    script = "." * 10 + "(" + "#" * 30 + ")" + "#" * trailing + "." * 300
    played = play(script, engines(stt), settings=SETTINGS)
    assert played.at(TurnEnded) == 800 + 1000 * delay_s and said(played) == ["hello there"]
    assert played.all(ReplyInterrupted) == [] and played.all(ReplyFinished) == [ReplyFinished(1, ANSWER)]
    assert stt.calls == 1 and stt.frames[-1].pts + S == 40 * S
    assert played.names().count("SpeechStarted") == played.names().count("SpeechEnded") == 1


def test_a_word_begun_right_before_the_release_trails_too() -> None:
    played = play("(" + "." * 40 + "##" + ")" + "#" * 20 + "." * 200, settings=SETTINGS)
    assert said(played) == ["hello there"] and played.all(ReplyInterrupted) == []


@pytest.mark.parametrize("delay_s", [0.0, 0.5, 2.0])
def test_speech_after_the_release_is_automatic_again(delay_s: float) -> None:
    """Said while the answer is given, or while the turn waits for its words: a barge-in, of which nothing is lost."""
    stt = FakeStt(texts=("first", "second"), delay_s=delay_s)
    script = "." * 10 + "(" + "#" * 30 + ")" + "." * 20 + "#" * 30 + "." * 400
    played = play(script, engines(stt), settings=SETTINGS)
    assert said(played) == ["first", "second"]
    assert len(played.all(ReplyInterrupted)) == 1
    assert played.all(ReplyFinished) == [ReplyFinished(2, ANSWER)]
    starts = [b.pts for a, b in zip(stt.frames, stt.frames[1:], strict=False) if a.pts + len(a.pcm) != b.pts]
    assert starts == [60 * S - 300 * 16], "no audio of the answered turn"


def test_a_cough_after_the_release_costs_the_agent_nothing() -> None:
    script = "(" + "#" * 30 + ")" + "." * 10 + "#" * 5 + "." * 300
    for delay_s in (0.0, 0.5):
        stt = FakeStt(("hello there", ""), delay_s=delay_s)
        played = play(script, engines(stt), settings=SETTINGS)
        assert said(played) == ["hello there"] and played.all(ReplyFinished) == [ReplyFinished(1, ANSWER)]


def test_the_next_press_never_has_audio_of_the_answered_turn() -> None:
    stt = FakeStt(texts=("one", "two"))
    played = play("(" + "#" * 30 + ")" + "." * 5 + "(" + "#" * 30 + ")" + "." * 200, engines(stt), settings=SETTINGS)
    assert said(played) == ["one", "two"]
    pts = [frame.pts for frame in stt.frames]
    assert pts == sorted(set(pts)) and sum(len(frame.pcm) for frame in stt.frames) == 65 * S


def test_a_press_takes_over_what_the_caller_is_already_saying() -> None:
    stt = FakeStt()
    played = play("#" * 20 + "(" + "#" * 20 + "." * 40 + "#" * 5 + ")" + "." * 200, engines(stt), settings=SETTINGS)
    assert said(played) == ["hello there"] and stt.calls == 1
    assert played.at(TurnEnded) == 85 * FRAME_MS
    assert played.names().count("SpeechStarted") == 1


def test_an_answer_prepared_before_the_press_is_given_at_the_release_if_the_words_did_not_change() -> None:
    llm = FakeLlm()
    stt = FakeStt(texts=("hello", ""))
    played = play("#" * 30 + "." * 8 + "(" + "." * 20 + ")" + "." * 200, engines(stt, llm), settings=SETTINGS)
    assert len(llm.prompts) == 1 and said(played) == ["hello"]
    assert played.at(ReplyAudioStarted) == 58 * FRAME_MS


def test_pressing_twice_and_releasing_without_a_press_are_harmless() -> None:
    played = play("." * 5 + ")" + "((" + "#" * 30 + "(" + "#" * 5 + "))" + "." * 200 + ")", settings=SETTINGS)
    assert said(played) == ["hello there"] and played.at(TurnEnded) == 40 * FRAME_MS
    assert played.all(ReplyFinished) == [ReplyFinished(1, ANSWER)]


def test_outside_of_a_press_everything_is_automatic_as_before() -> None:
    plain = play("." * 10 + "#" * 30 + "." * 300, settings=SETTINGS)
    after = play("." * 10 + "#" * 30 + "." * 300 + "(" + "#" * 30 + ")", settings=SETTINGS)
    before = [(ms, type(e)) for ms, e in plain.events if ms < 5000]
    assert [(ms, type(e)) for ms, e in after.events if ms < 5000] == before


def test_a_long_press_is_transcribed_in_parts_of_one_turn() -> None:
    settings = SessionSettings(SETTINGS.speech, TurnSettings(endpoint_ms=200, max_utterance_ms=1000))
    stt = FakeStt(texts=("one", "two", "three"))
    played = play("(" + "#" * 130 + ")" + "." * 100, engines(stt), settings=settings)
    assert said(played) == ["one two three"] and played.at(TurnEnded) == 130 * FRAME_MS
    assert sum(len(frame.pcm) for frame in stt.frames) == 130 * S


def test_a_stuck_button_is_released() -> None:
    settings = SessionSettings(SETTINGS.speech, TurnSettings(endpoint_ms=200, max_press_ms=1000))
    played = play("(" + "#" * 50 + "." * 300 + ")" + "." * 20, settings=settings)
    assert said(played) == ["hello there"] and played.at(TurnEnded) == 1000
    assert played.all(SpeechEnded) == [SpeechEnded(50 * S)]


@pytest.mark.parametrize("held", [30, 250])
def test_over_an_agent_that_may_not_be_interrupted_a_press_is_answered_after_it(held: int) -> None:
    stt = FakeStt(texts=("tell me", "and more"))
    script = "#" * 30 + "." * 60 + "(" + "#" * held + ")" + "." * (500 - held)
    played = play(script, engines(stt), settings=SETTINGS, agent=PATIENT)
    assert played.all(ReplyInterrupted) == [] and said(played) == ["tell me", "and more"]
    release_ms = (90 + held) * FRAME_MS
    assert played.at(TurnEnded, 1) == max(release_ms, played.at(ReplyFinished))
    assert (release_ms < played.at(ReplyFinished)) == (held == 30), "one is released before the reply ends, one after"
    assert played.all(ReplyFinished)[0].heard == ANSWER and len(played.all(ReplyFinished)) == 2


def test_typed_words_let_an_agent_finish_that_may_not_be_interrupted() -> None:
    script = "#" * 30 + "." * 60 + "T" + "." * 10 + "T" + "." * 500
    played = play(script, settings=SETTINGS, agent=PATIENT)
    assert said(played) == ["hello there", "typed typed"] and played.all(ReplyInterrupted) == []
    assert played.at(TurnEnded, 1) == played.at(ReplyFinished) < played.at(ReplyAudioStarted, 1)
    assert [e.heard for e in played.all(ReplyFinished)] == [ANSWER, ANSWER]
    assert played.all(TurnMeasured)[-1].stt_ms is None


def test_typed_words_wait_for_a_greeting_and_for_a_reply_that_fails() -> None:
    agent = Agent("a", "A", greeting="Hello there.", allow_interruptions=False)
    played = play("." * 5 + "T" + "." * 400, settings=SETTINGS, agent=agent)
    assert played.all(ReplyFinished)[0].heard == "Hello there." and said(played) == ["typed"]
    broken = engines(llm=FakeLlm(per_word_s=0.1, fail_after_words=3))
    played = play("#" * 30 + "." * 20 + "T" + "." * 400, broken, settings=SETTINGS, agent=PATIENT)
    assert said(played) == ["hello there", "typed"] and played.at(EngineFailed) == played.at(TurnEnded, 1)


@pytest.mark.parametrize("paused", [20, 7])
def test_typed_words_know_nothing_of_transcription(paused: int) -> None:
    """Neither of the turn before, nor of the one that they replace while it is still waited for its end."""
    played = play("#" * 30 + "." * paused + "T" + "." * 200, settings=SETTINGS)
    typed = played.all(TurnMeasured)[-1]
    assert (typed.user, typed.endpoint_ms, typed.stt_ms) == ("typed", 0, None)
    assert said(played) == (["hello there", "typed"] if paused == 20 else ["typed"])


def test_typed_words_over_a_press_are_the_turn_and_what_is_said_on_is_the_next() -> None:
    stt = FakeStt(("dropped", "wait for me"))
    played = play(
        "." * 5 + "(" + "#" * 30 + "T" + "#" * 30 + ")" + "#" * 10 + "." * 200, engines(stt), settings=SETTINGS
    )
    assert said(played) == ["typed", "wait for me"] and played.at(TurnEnded) == 35 * FRAME_MS
    assert [event.text for event in played.all(TranscriptUpdated) if event.final] == ["typed", "wait for me"]
    assert played.all(SpeechEnded) == [SpeechEnded(35 * S), SpeechEnded(75 * S)]


@pytest.mark.parametrize("release", [")", "released early"])
def test_a_slip_of_the_finger_loses_nothing_of_what_is_said(release: str) -> None:
    """40 ms, while the caller speaks hands-free; a release tells what sound it overtook, but a slip has none."""
    stt = FakeStt()
    slip, at = ("(##)", None) if release == ")" else ("(##", (1_061, release_early))
    played = play("." * 3 + "#" * 48 + slip + "#" * 50 + "." * 200, engines(stt), settings=SETTINGS, at=at)
    assert said(played) == ["hello there"] and stt.calls == 1
    assert played.all(SpeechEnded) == [SpeechEnded(103 * S)]
    assert {frame.pts for frame in stt.frames if len(frame.pcm)} >= set(range(51 * S, 103 * S, S))


def test_a_detector_that_fails_ends_the_press_and_what_was_said_is_answered() -> None:
    class Breaking(LoudnessDetector):
        windows = 0

        def open(self) -> Breaking:
            return self

        def probability(self, window: Pcm) -> float:
            self.windows += 1
            if self.windows > 40:
                raise ValueError("the detector fell over")
            return super().probability(window)

    bundle = engines()
    broken = type(bundle)(Breaking(), bundle.stt, bundle.llm, bundle.tts)
    played = play("(" + "#" * 40 + ")" + "(" + "#" * 40 + ")" + "." * 200, broken, settings=SETTINGS)
    assert [f.stage for f in played.all(EngineFailed)] == ["vad"] and said(played) == ["hello there"]
    assert played.names()[:4] == ["SpeechStarted", "SpeechEnded", "EngineFailed", "TranscriptUpdated"]
    assert played.names().count("SpeechStarted") == played.names().count("SpeechEnded") == 1


@pytest.mark.parametrize("interruptible", [True, False])
@pytest.mark.parametrize("at", range(0, 150, 3))
def test_a_press_at_any_moment_of_a_conversation_is_a_turn_that_is_answered(at: int, interruptible: bool) -> None:
    """Before, in and after speech, its pauses, waiting for words, thinking and speaking."""
    stt = FakeStt(texts=("one", "two", "three"), delay_s=0.15)
    script = "." * 20 + "#" * 30 + "." * 5 + "#" * 10 + "." * 90 + "#" * 40 + "." * 5
    pressed = script[:at] + "(" + script[at : at + 15] + "#" * 10 + ")" + script[at + 15 :]
    agent = Agent("a", "A", allow_interruptions=interruptible)
    played = play(pressed + "." * 700, engines(stt, FakeLlm(ttft_s=0.1)), settings=SETTINGS, agent=agent)
    press_ms, release_ms = at * FRAME_MS, (at + 25) * FRAME_MS
    turns = [ms for ms, event in played.events if isinstance(event, TurnEnded)]
    assert [ms for ms in turns if ms >= release_ms], "the press was answered"
    assert not [ms for ms in turns if press_ms < ms < release_ms], "no turn ends while the button is held"
    assert played.all(ReplyFinished), "and the answer was heard"
    if interruptible:
        assert [ms for ms in played.audible() if press_ms + FRAME_MS < ms <= release_ms] == []
    else:
        assert played.all(ReplyInterrupted) == []


def test_nothing_happens_once_the_session_has_closed() -> None:
    played = play("#" * 30 + "." * 30, settings=SETTINGS)
    assert played.session is not None
    for late in (Session.start_speech, Session.end_speech, lambda session: session.push_text("typed")):
        late(played.session)
    assert played.names()[-1] == "SessionClosed"
