"""The chat service over real HTTP: one conversation a session, streams, errors, and who is answered by whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from compat_ws import chat
from compat_ws.asking import TEXT_MAX_CHARS
from compat_ws.conversations import ConversationLimits, Conversations
from pipeline.agents import Agent
from pipeline.errors import EngineError
from pipeline.events import Message
from pipeline.reply import Patience
from tests.fakes import FakeLlm
from tests.service_server import Service, check, engine_set, error_of, events_of, shelf

EVENTS = {"Accept": "text/event-stream"}


@dataclass
class SteppedLlm:
    """Says ``words``, each after a permit; raises ``fault`` at the end."""

    words: Sequence[str] = ("one ", "two ", "three ")
    fault: Exception | None = None
    prompts: list[list[Message]] = field(default_factory=list)
    closed: int = 0

    def __post_init__(self) -> None:
        """Nothing may be said yet."""
        self.permits = asyncio.Semaphore(0)

    def allow(self, words: int) -> None:
        """Let it say so many words more."""
        for _ in range(words):
            self.permits.release()

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Say the words."""
        self.prompts.append(list(messages))
        try:
            for word in self.words:
                await self.permits.acquire()
                yield word
            if self.fault is not None:
                raise self.fault
        finally:
            self.closed += 1


async def said(service: Service, text: str, session: str | None = "s1", **more: Any) -> str:
    """Say something; return the answer."""
    response = await service.post("/chat", {"text": text, "session_id": session, **more})
    assert response.status == 200, await response.text()
    answer = await response.json()
    assert list(answer) == ["response"]
    return str(answer["response"])


# Conversations


def test_a_real_engine_answers() -> None:
    async def test(service: Service) -> None:
        assert "mother" in await said(service, "My mother hates me.")
        assert service.counts.begun == ["llm"]
        assert service.counts.ended == [("llm", "finished")]
        assert service.counts.produced > 3

    check(test, engine_set(llm="eliza"))


def test_a_session_remembers_and_another_does_not() -> None:
    llm = FakeLlm("Well said.")

    async def test(service: Service) -> None:
        assert await said(service, "I am Eve.") == "Well said. "
        await said(service, "Who am I?")
        await said(service, "Who am I?", session="s2")
        await said(service, "Who am I?", session=None)
        await said(service, "And now?", session=None)

    check(test, shelf({"llm": llm}))
    texts = [[message.text for message in prompt[1:]] for prompt in llm.prompts]
    assert texts[1] == ["I am Eve.", "Well said. ", "Who am I?"]
    assert texts[2:] == [["Who am I?"], ["Who am I?"], ["And now?"]]
    assert all(prompt[0].role == "system" and prompt[0].text for prompt in llm.prompts)


def test_another_personality_goes_on_with_the_same_conversation() -> None:
    llm = FakeLlm("Hm.")

    async def test(service: Service) -> None:
        await service.catalogue.add(Agent("bob", "Bob the Builder", system_prompt="You are Bob."))
        await said(service, "Hello.")
        await said(service, "Who are you?", personality="bob")
        await said(service, "Really?", personality="bob the builder")
        await said(service, "And you?", config={"system_prompt": "You are Eve.", "agentName": "Eve"})
        await said(service, "Sure?", config_id="bob", config={"speed": 2.0})
        await said(service, "Quite?", personality="Bob the Builder", config={"greeting": "Hi."})

    check(test, shelf({"llm": llm}))
    assert [prompt[0].text for prompt in llm.prompts[1:]] == ["You are Bob."] * 2 + ["You are Eve."] + [
        "You are Bob."
    ] * 2
    assert [message.text for message in llm.prompts[1][1:]] == ["Hello.", "Hm. ", "Who are you?"]


def test_an_agent_chooses_its_engine_and_groq_is_asked_for_by_address() -> None:
    named = {"other": FakeLlm("The other."), "groq": FakeLlm("I am Groq.")}

    async def test(service: Service) -> None:
        await service.catalogue.add(Agent("bob", "Bob", llm="other"))
        assert await said(service, "Hello.") == "I am the server's. "
        assert await said(service, "Hello.", personality="bob") == "The other. "
        response = await service.post("/chat/groq", {"text": "Hello.", "session_id": "s1", "personality": "bob"})
        assert await response.json() == {"response": "I am Groq. "}
        assert len(named["groq"].prompts[0]) == 6, "it is the same conversation"

    check(test, shelf({"llm": FakeLlm("I am the server's.")}, named))


def test_groq_without_its_key_says_which_is_missing() -> None:
    async def test(service: Service) -> None:
        response = await service.post("/chat/groq", {"text": "Hello."})
        assert (await error_of(response, 500))["message"] == "the llm engine 'groq' needs GROQ_API_KEY"

    check(test, engine_set({}))


# Streams


def test_a_stream_gives_each_delta_and_then_the_whole() -> None:
    async def test(service: Service) -> None:
        response = await service.post("/chat", {"text": "Hello there", "session_id": "s1"}, **EVENTS)
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Cache-Control"] == "no-cache"
        *deltas, last = (json.loads(event) for event in events_of(await response.text()))
        assert [list(event) for event in deltas] == [["delta"]] * 4
        assert (
            last == {"response": "".join(event["delta"] for event in deltas)} == {"response": "You said: Hello there."}
        )

    check(test)


def test_the_first_delta_is_there_while_the_model_still_thinks() -> None:
    llm = SteppedLlm()

    async def test(service: Service) -> None:
        llm.allow(1)
        async with service.client.post(f"{service.url}/chat", json={"text": "Hello."}, headers=EVENTS) as response:
            assert await response.content.readline() == b'data: {"delta": "one "}\n'
            assert llm.closed == 0
            llm.allow(2)
            assert (await response.text()).endswith('data: {"response": "one two three "}\n\n')

    check(test, shelf({"llm": llm}))


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
def test_who_leaves_stops_the_model(path: str) -> None:
    llm = SteppedLlm()
    body = {"text": "Hello.", "session_id": "s1", "messages": [{"role": "user", "content": "Hello."}], "stream": True}

    async def test(service: Service) -> None:
        llm.allow(1)
        async with service.client.post(service.url + path, json=body, headers=EVENTS) as response:
            await response.content.readline()
            response.close()
        await service.counts.until(lambda: service.counts.ended == [("llm", "abandoned")])
        assert llm.closed == 1

    check(test, shelf({"llm": llm}))


def test_who_leaves_before_the_first_word_stops_the_model() -> None:
    llm = SteppedLlm()

    async def test(service: Service) -> None:
        asking = asyncio.create_task(service.post("/chat", {"text": "Hello.", "session_id": "s1"}))
        await service.counts.until(lambda: bool(service.counts.begun))
        asking.cancel()
        await asyncio.wait([asking])
        await service.counts.until(lambda: service.counts.ended == [("llm", "abandoned")])
        assert llm.closed == 1
        llm.allow(3)
        await said(service, "Again.")
        assert [message.text for message in llm.prompts[1][1:]] == ["Again."], "what was not answered was not said"

    check(test, shelf({"llm": llm}))


def test_only_what_was_given_out_is_remembered() -> None:
    llm = SteppedLlm()

    async def test(service: Service) -> None:
        llm.allow(2)
        body = {"text": "Count.", "session_id": "s1"}
        async with service.client.post(f"{service.url}/chat", json=body, headers=EVENTS) as response:
            await response.content.readuntil(b'two "}\n\n')
            response.close()
        await service.counts.until(lambda: bool(service.counts.ended))
        llm.allow(3)
        await said(service, "Go on.")
        assert [message.text for message in llm.prompts[1][1:]] == ["Count.", "one two ", "Go on."]

    check(test, shelf({"llm": llm}))


def test_two_requests_at_once_in_one_session_do_not_mix() -> None:
    llm = SteppedLlm()

    async def test(service: Service) -> None:
        async with asyncio.TaskGroup() as group:
            for text in ("First?", "Second?"):
                group.create_task(said(service, text))
            await service.counts.until(lambda: len(service.counts.begun) == 2)
            llm.allow(6)
        llm.allow(3)
        await said(service, "Third?")
        roles = [message.role for message in llm.prompts[-1][1:]]
        assert roles == ["user", "assistant", "user", "assistant", "user"]
        texts = [message.text for message in llm.prompts[-1][1:]]
        assert {texts[0], texts[2]} == {"First?", "Second?"}
        assert texts[1] == texts[3] == "one two three "

    check(test, shelf({"llm": llm}))


# Engines that fail


@pytest.mark.parametrize("headers", [{}, EVENTS])
@pytest.mark.parametrize("fault", [EngineError("the model is out of memory"), RuntimeError("secret-inner-text")])
def test_a_model_that_fails_before_its_first_word_has_a_true_status(headers: dict[str, str], fault: Exception) -> None:
    async def test(service: Service) -> None:
        response = await service.post("/chat", {"text": "Hello.", "session_id": "s1"}, **headers)
        error = await error_of(response, 502)
        assert error["message"] in ("the model is out of memory", "the llm engine failed: RuntimeError")
        assert service.counts.ended == [("llm", "failed")]

    check(test, shelf({"llm": SteppedLlm((), fault)}))


def test_a_stream_that_fails_half_way_says_so_and_is_cut_off() -> None:
    llm = SteppedLlm(("one ",), EngineError("the model fell over"))

    async def test(service: Service) -> None:
        llm.allow(1)
        body = {"text": "Hello.", "session_id": "s1"}
        async with service.client.post(f"{service.url}/chat", json=body, headers=EVENTS) as response:
            assert await response.content.readuntil(b"\n\n") == b'data: {"delta": "one "}\n\n'
            last = json.loads((await response.content.readuntil(b"\n\n")).removeprefix(b"data: "))
            assert last == {"error": {"message": "the model fell over", "type": "server_error", "param": None}}
            with pytest.raises(ClientPayloadError):
                await response.content.read()
        assert service.counts.ended == [("llm", "failed")]

    check(test, shelf({"llm": llm}))


def test_a_model_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = SteppedLlm()
    monkeypatch.setattr(chat, "PATIENCE", Patience(llm_s=0.05))

    async def test(service: Service) -> None:
        response = await service.post("/chat", {"text": "Hello."})
        assert (await error_of(response, 502))["message"] == "the llm engine gave nothing for 0.05 s"
        assert llm.closed == 1

    check(test, shelf({"llm": llm}))


def test_a_model_that_never_ends_is_stopped() -> None:
    llm = FakeLlm("word " * 20_000)

    async def test(service: Service) -> None:
        answer = await said(service, "Talk.")
        assert 65_536 <= len(answer) <= 65_541
        assert llm.closed == 1
        assert service.counts.ended == [("llm", "finished")]

    check(test, shelf({"llm": llm}))


# What is wrong with a request


@pytest.mark.parametrize("path", ["/chat", "/chat/groq"])
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"text": ""}, 400, "text"),
        ({"text": " \n\t"}, 400, "text"),
        ({"session_id": "s1"}, 400, "text"),
        ({"text": 7}, 400, "text"),
        ({"text": "x" * 100_000}, 413, "text"),
        ({"text": "x" * 300_000}, 413, None),
        ({"text": "Hello.", "session_id": "../../etc/passwd"}, 400, "session_id"),
        ({"text": "Hello.", "session_id": "s" * 65}, 400, "session_id"),
        ({"text": "Hello.", "session_id": "s1\n"}, 400, "session_id"),
        ({"text": "Hello.", "personality": "nobody"}, 404, "personality"),
        ({"text": "Hello.", "personality": "n" * 201}, 400, "personality"),
        ({"text": "Hello.", "config": {"systemPrompt": "x" * 20_000}}, 400, "systemPrompt"),
        ({"text": "Hello.", "config": {"agentId": "../x"}}, 400, "agentId"),
        ({"text": "Hello.", "config": "x"}, 400, "config"),
        (["text"], 400, None),
    ],
)
def test_what_is_wrong_is_named(path: str, body: Any, status: int, param: str | None) -> None:
    async def test(service: Service) -> None:
        error = await error_of(await service.post(path, body), status)
        assert error["param"] == param
        assert len(error["message"]) < 300
        assert service.counts.begun == []

    check(test)


def test_an_unknown_personality_is_told_how_to_create_one() -> None:
    async def test(service: Service) -> None:
        error = await error_of(await service.post("/chat", {"text": "Hello.", "personality": "nobody"}), 404)
        assert "POST /agents" in error["message"]
        assert "default" in error["message"]

    check(test)


def test_the_longest_text_is_taken() -> None:
    async def test(service: Service) -> None:
        text = "\N{SPEAKING HEAD IN SILHOUETTE}" * TEXT_MAX_CHARS
        assert text in await said(service, text)

    check(test)


def test_a_form_is_no_json() -> None:
    async def test(service: Service) -> None:
        await error_of(await service.client.post(f"{service.url}/chat", data={"text": "Hello."}), 415)
        await error_of(await service.client.get(f"{service.url}/chat"), 405)

    check(test)


# What is remembered


def remembered(conversations: Conversations, session: str) -> list[str]:
    """Return what the next prompt of a session would say of the past."""
    return [message.text for message in conversations.prompt(session, "", "?")[1:-1]]


def test_turns_are_bounded() -> None:
    conversations = Conversations(lambda: 0.0, ConversationLimits(turns=2))
    for number in range(5):
        conversations.commit("s", f"question {number}", f"answer {number}")
    assert remembered(conversations, "s") == ["question 3", "answer 3", "question 4", "answer 4"]


def test_the_conversation_that_was_used_longest_ago_goes_first() -> None:
    conversations = Conversations(lambda: 0.0, ConversationLimits(conversations=3))
    for session in ("a", "b", "c", "a", "d"):
        conversations.commit(session, "?", "!")
    assert len(conversations) == 3
    assert [bool(remembered(conversations, session)) for session in "abcd"] == [True, False, True, True]


def test_characters_are_bounded_over_all_conversations() -> None:
    conversations = Conversations(lambda: 0.0, ConversationLimits(characters=100))
    conversations.commit("a", "x" * 30, "y" * 30)
    conversations.commit("b", "x" * 10, "y" * 10)
    conversations.commit("b", "x" * 9, "y" * 9)
    assert [len(remembered(conversations, session)) for session in "ab"] == [2, 4]
    conversations.commit("c", "x" * 10, "y" * 10)
    assert [len(remembered(conversations, session)) for session in "abc"] == [0, 4, 2]
    conversations.commit("c", "x" * 101, "y")
    assert len(conversations) == 0


def test_a_conversation_is_forgotten_an_hour_after_its_last_answer() -> None:
    now_s = 0.0
    conversations = Conversations(lambda: now_s, ConversationLimits(unused_s=3600.0))
    conversations.commit("a", "?", "!")
    now_s = 3000.0
    conversations.commit("b", "?", "!")
    now_s = 3601.0
    assert [len(remembered(conversations, session)) for session in "ab"] == [0, 2]
    assert len(conversations) == 1


def test_what_was_not_answered_is_not_remembered() -> None:
    conversations = Conversations(lambda: 0.0)
    conversations.commit("a", "?", "")
    conversations.commit(None, "?", "!")
    conversations.commit("", "?", "!")
    assert len(conversations) == 0
    assert conversations.prompt(None, "Be brief.", "Hello.") == [
        Message("system", "Be brief."),
        Message("user", "Hello."),
    ]
