"""How a client describes an agent, and which voice an agent speaks with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices

from pipeline.agents import BUILT_IN, Agent, AgentFields, is_id, read_fields, read_request
from pipeline.errors import ProtocolError
from pipeline.speech_detector import DetectorSettings

EVE = Agent("eve", "Eve", "Be Eve.", "I am Eve.", "de", 1.5, "anna", stt="whisper")


@pytest.mark.parametrize(
    ("field", "value", "attribute"),
    [
        ("systemPrompt", "Be brief.", "system_prompt"),
        ("system_prompt", "Be brief.", "system_prompt"),
        ("greeting", "Hi.", "greeting"),
        ("greeting", "", "greeting"),
        ("language", "fr", "language"),
        ("language", "zh-cn", "language"),
        ("speed", 2.0, "speed"),
        ("rate", 2.0, "speed"),
        ("voice", "bob", "voice"),
        ("allowInterruptions", False, "allow_interruptions"),
        ("allow_interruptions", False, "allow_interruptions"),
        ("sttModel", "pocketsphinx", "stt"),
        ("llmModel", "echo", "llm"),
        ("ttsModel", "tone", "tts"),
        ("tts", "tone", "tts"),
    ],
)
def test_a_field_replaces_that_of_a_known_agent_and_of_the_default_one(
    field: str, value: object, attribute: str
) -> None:
    assert getattr(read_fields({field: value}).over(EVE), attribute) == value
    assert getattr(read_fields({field: value}).alone(BUILT_IN), attribute) == value


@pytest.mark.parametrize("nothing", [{}, {"userId": "u"}, {"speed": None, "systemPrompt": "", "language": ""}])
def test_what_is_not_given_leaves_an_agent_as_it_is(nothing: dict[str, Any]) -> None:
    assert read_fields(nothing).alone(EVE) == EVE == read_fields({**nothing, "agentName": "Bob"}).over(EVE)


def test_a_temporary_agent_has_the_name_and_id_it_was_given() -> None:
    agent = read_fields({"agentId": "new", "agentName": "Bob"}).alone(EVE)
    assert (agent.id, agent.name, agent.system_prompt, agent.greeting) == ("new", "Bob", "Be Eve.", "I am Eve.")
    assert read_fields({"configId": "c"}).alone(EVE).id == "c"
    assert read_fields({"language": "fr"}).alone(EVE).id == "inline"


def test_somebody_else_does_not_greet_with_the_defaults_words() -> None:
    assert read_fields({"systemPrompt": "Be Bob."}).alone(EVE).greeting == ""
    assert read_fields({"systemPrompt": "Be Bob.", "greeting": "Bob here."}).alone(EVE).greeting == "Bob here."
    assert read_fields({"systemPrompt": "Be Bob."}).over(EVE).greeting == "I am Eve."


def test_of_two_spellings_the_one_that_says_something_counts() -> None:
    assert read_fields({"speed": None, "rate": 2}).speed == 2
    assert read_fields({"elevenLabsVoiceId": "a", "elevenlabsVoiceId": "b"}).elevenlabs == "a"
    assert read_fields({"elevenlabsVoiceId": "b"}).elevenlabs == "b"


def test_a_models_name_chooses_no_engine() -> None:
    agent = read_fields({"sttModel": "whisper-large-v3", "llmModel": "gpt-4o", "ttsModel": "tone"}).over(EVE)
    assert (agent.stt, agent.llm, agent.tts) == ("whisper", None, "tone")


def test_cloud_voices_are_kept_by_engine() -> None:
    agent = read_fields({"cartesiaVoiceId": "c-1", "elevenLabsVoiceId": "E1"}).over(EVE)
    assert (agent.voice_for("cartesia", clones=True), agent.voice_for("elevenlabs", clones=False)) == ("c-1", "E1")
    assert agent.voice_for("espeak", clones=False) == "anna"


def test_a_sample_goes_to_an_engine_that_clones() -> None:
    agent = Agent("a", "A", voice="anna", sample="ff", voices={"cartesia": "c"})
    assert agent.voice_for("xtts", clones=True) == "sample:ff"
    assert agent.voice_for("espeak", clones=False) == "anna"
    assert agent.voice_for("cartesia", clones=True) == "c"


def test_the_detectors_numbers_are_taken_and_the_missing_ones_are_its_own() -> None:
    detector = read_fields({"speechDetectorConfig": {"energy_threshold": 0.2, "max_silence_duration": 1}}).over(EVE)
    assert detector.detector == DetectorSettings(energy_threshold=0.2, max_silence_duration=1)
    assert read_fields({"speechDetectorConfig": {}}).over(EVE).detector == DetectorSettings()
    assert EVE.detector is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"agentId": "../../etc/passwd"}, "agentId"),
        ({"agentId": "a\n"}, "agentId"),
        ({"agentId": 7}, "agentId"),
        ({"agentId": "x" * 65}, "agentId"),
        ({"configId": "a/b"}, "configId"),
        ({"agentName": "x" * 201}, "agentName"),
        ({"name": "a\x00"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"systemPrompt": "x" * 16_385}, "systemPrompt"),
        ({"system_prompt": "x" * 10_000_000}, "system_prompt"),
        ({"greeting": ["Hi"]}, "greeting"),
        ({"language": "english"}, "language"),
        ({"speed": 99}, "speed"),
        ({"rate": float("nan")}, "rate"),
        ({"speed": 10**400}, "speed"),
        ({"allowInterruptions": "perhaps"}, "allowInterruptions"),
        ({"cartesiaVoiceId": "a b"}, "cartesiaVoiceId"),
        ({"elevenlabsVoiceId": "../v1"}, "elevenlabsVoiceId"),
        ({"voiceSampleUrl": "https://" + "x" * 2_048}, "voiceSampleUrl"),
        ({"voice": ""}, None),
        ({"agentId": " ", "agentName": "  ", "language": "\t", "voice": " "}, None),
        ({"voice": "x" * 201}, "voice"),
        ({"llmModel": {}}, "llmModel"),
        ({"speechDetectorConfig": 1}, "speechDetectorConfig"),
        ({"speechDetectorConfig": {"energy_threshold": 1.5}}, "speechDetectorConfig.energy_threshold"),
        ({"speechDetectorConfig": {"max_silence_duration": 0}}, "speechDetectorConfig.max_silence_duration"),
        ({"speechDetectorConfig": {"max_recording_duration": 1e9}}, "speechDetectorConfig.max_recording_duration"),
    ],
)
def test_what_is_out_of_bounds_is_named_and_not_repeated(fields: dict[str, Any], param: str | None) -> None:
    if param is None:
        assert read_fields(fields).over(EVE) == EVE
        return
    with pytest.raises(ProtocolError) as caught:
        read_fields(fields)
    assert (caught.value.param, caught.value.status) == (param, 400)
    assert len(str(caught.value)) < 200


def test_an_agent_is_named_or_described() -> None:
    assert read_request({"agent": "eve", "speed": 2})[0] == "eve"
    assert read_request({"agent": "eve", "speed": 2})[1].speed == 2
    assert read_request({"agent": {"agentName": "Bob"}, "agentName": "Al"})[1].name == "Bob"
    for nobody in (None, ""):
        assert read_request({"agent": nobody, "agentId": "x"}) == (None, read_fields({"agentId": "x"}))
    with pytest.raises(ProtocolError) as caught:
        read_request({"agent": 7})
    assert caught.value.param == "agent"


@pytest.mark.parametrize("text", ["", "a/b", "..", "a b", "ä", "a\n", "x" * 65, "a\x00", "٣"])
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _aliases(alias: object) -> list[Any]:
    return list(alias.choices) if isinstance(alias, AliasChoices) else []


SPELLINGS = {alias for field in AgentFields.model_fields.values() for alias in _aliases(field.validation_alias)}
FIELDS = st.sampled_from(sorted({"agent", "userId", *AgentFields.model_fields, *SPELLINGS}))
REQUESTS = st.dictionaries(FIELDS | st.text(max_size=8), JSON | st.dictionaries(FIELDS, JSON, max_size=4), max_size=6)


def assert_that_names_a_field(error: ProtocolError) -> None:
    assert error.param


@given(REQUESTS)
def test_any_json_is_an_agent_or_has_a_fault(request: dict[str, Any]) -> None:
    try:
        named, fields = read_request(request)
    except ProtocolError as error:
        assert_that_names_a_field(error)
        return
    assert named is None or isinstance(named, str)
    assert isinstance(fields.over(EVE), Agent)
    assert isinstance(fields.alone(EVE), Agent)
