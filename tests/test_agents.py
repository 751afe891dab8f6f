"""Which agent a request asks for."""

from __future__ import annotations

import pytest

from pipeline.agents import Agent, Agents
from pipeline.errors import ProtocolError

AGENTS = Agents(Agent("ada", "Ada"), Agent("bob", "Bob"))


def test_who_names_nobody_gets_the_first_one() -> None:
    assert AGENTS.find({}).id == "ada" == AGENTS.find({"agentId": "x"}).id
    assert AGENTS.find({"agent": "bob"}).name == "Bob"


@pytest.mark.parametrize(
    ("field", "value", "attribute"),
    [
        ("agentName", "Eve", "name"),
        ("system_prompt", "Be brief.", "system_prompt"),
        ("rate", 2.0, "speed"),
        ("allowInterruptions", False, "allow_interruptions"),
        ("greeting", "Hi.", "greeting"),
    ],
)
def test_any_one_field_describes_an_agent(field: str, value: object, attribute: str) -> None:
    assert getattr(AGENTS.find({field: value}), attribute) == value
    assert getattr(AGENTS.find({"agent": {field: value}}), attribute) == value


@pytest.mark.parametrize(
    "request_data",
    [{"agent": "nobody"}, {"agent": 7}, {"speed": 99}, {"agent": {"language": "english"}}, {"agentName": "x" * 201}],
)
def test_what_is_unknown_or_out_of_bounds_is_named(request_data: dict[str, object]) -> None:
    with pytest.raises(ProtocolError) as caught:
        AGENTS.find(request_data)
    assert caught.value.param
