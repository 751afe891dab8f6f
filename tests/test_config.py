"""The configuration: defaults, precedence, and errors a person can act on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from media_server.config import Config, ConfigError, environment, load

ROOT = Path(__file__).parent.parent


def test_nothing_set_is_a_working_configuration_open_to_this_machine_only() -> None:
    config = load({})
    assert (config.host, config.port, config.insecure, config.api_keys) == ("127.0.0.1", 8000, False, ())
    assert set(config.engine_names().values()) == {"auto"}


def test_variables_are_read_with_their_types() -> None:
    config = load(
        {
            "VOCAL_PORT": "9000",
            "VOCAL_API_KEYS": "one, two,",
            "VOCAL_ICE_SERVERS": "stun:stun.example.org:3478,turn:turn.example.org?transport=udp",
            "VOCAL_INSECURE": "1",
            "VOCAL_LOG_LEVEL": "debug",
            "VOCAL_STT": "third.party.engine",
            "VOCAL_DATA_DIR": "/var/lib/vocal",
        }
    )
    assert config.port == 9000
    assert config.api_keys == ("one", "two")
    assert [s.urls for s in config.ice_servers] == [
        ("stun:stun.example.org:3478",),
        ("turn:turn.example.org?transport=udp",),
    ]
    assert config.insecure
    assert config.log_level == "DEBUG"
    assert config.stt == "third.party.engine"
    assert config.data_dir == Path("/var/lib/vocal")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VOCAL_PORT", "eighty"),
        ("VOCAL_PORT", "65536"),
        ("VOCAL_INSECURE", "perhaps"),
        ("VOCAL_MAX_SESSIONS", "0"),
        ("VOCAL_DRAIN_S", "-1"),
        ("VOCAL_ENDPOINT_MS", "7"),
        ("VOCAL_TTS", "../x"),
        ("VOCAL_LOG_LEVEL", "chatty"),
    ],
)
def test_an_error_names_the_variable_its_value_and_what_is_allowed(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({variable: value})
    message = str(caught.value)
    allowed = Config.model_fields[variable.removeprefix("VOCAL_").lower()].description
    assert message == f"{variable}={value!r} is not usable: it must be {allowed}"
    assert "\n" not in message


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"MIN_MS": "500"}, "MIN_MS is not usable: 500 is more than VOCAL_ENDPOINT_MS, which is 400"),
        ({"MAX_MS": "300"}, "MAX_MS is not usable: 300 is less than VOCAL_ENDPOINT_MS, which is 400"),
        ({"MS": "900", "MAX_MS": "800"}, "MAX_MS is not usable: 800 is less than VOCAL_ENDPOINT_MS, which is 900"),
    ],
)
def test_the_waits_for_a_turns_end_are_in_order(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=f"^VOCAL_ENDPOINT_{says}$"):
        load({f"VOCAL_ENDPOINT_{name}": value for name, value in given.items()})
    assert load({"VOCAL_ENDPOINT_MIN_MS": "500", "VOCAL_ENDPOINT_MS": "600"}).endpoint_min_ms == 500


def test_a_bad_ice_server_is_named_without_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"VOCAL_ICE_SERVERS": "stun:stun.example.org,turn:user:hunter2@turn.example.org"})
    assert str(caught.value).startswith("VOCAL_ICE_SERVERS is not usable: ICE server 2: ")
    assert "hunter2" not in str(caught.value)


def test_a_bad_origin_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^VOCAL_ORIGINS is not usable: 'example.org' is no origin"):
        load({"VOCAL_ORIGINS": "https://example.org,example.org"})


def test_each_fault_has_its_own_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"VOCAL_PORT": "x", "VOCAL_DRAIN_S": "y"})
    assert [line.split("=")[0] for line in str(caught.value).splitlines()] == ["VOCAL_PORT", "VOCAL_DRAIN_S"]


def test_a_secret_is_shown_neither_in_errors_nor_in_the_configuration() -> None:
    names = ("VOCAL_API_KEYS", "VOCAL_OPERATOR_KEYS", "VOCAL_TURN_SECRET", "GROQ_API_KEY")
    ice = '[{"urls": "turn:turn.example.org", "username": "me", "credential": "hunter2"}]'
    config = load({**dict.fromkeys(names, "hunter2"), "VOCAL_ICE_SERVERS": ice})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config)
    assert config.settings["GROQ_API_KEY"] == "hunter2"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_other_machines_need_a_key_or_a_word(host: str) -> None:
    with pytest.raises(ConfigError, match="VOCAL_API_KEYS"):
        load({"VOCAL_HOST": host})
    assert load({"VOCAL_HOST": host, "VOCAL_API_KEYS": "a-long-key"}).api_keys
    assert load({"VOCAL_HOST": host, "VOCAL_OPERATOR_KEYS": "a-long-key"}).operator_keys
    assert load({"VOCAL_HOST": host, "VOCAL_INSECURE": "yes"}).insecure


def test_the_environment_wins_over_the_file_and_empty_is_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text('VOCAL_PORT=9001\nVOCAL_STT="scripted"\nGROQ_API_KEY=abc\nVOCAL_TTS=\n')
    monkeypatch.setenv("VOCAL_PORT", "9002")
    monkeypatch.setenv("VOCAL_LLM", "")
    settings = environment(file)
    assert settings["VOCAL_PORT"] == "9002"
    assert settings["VOCAL_STT"] == "scripted"
    assert settings["GROQ_API_KEY"] == "abc"
    assert "VOCAL_TTS" not in settings
    assert "VOCAL_LLM" not in settings


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"VOCAL_API_KEYS=\xff\xfehunter2")
    with pytest.raises(ConfigError, match=r"^cannot read .*\.env: it is not UTF-8$"):
        environment(file)


@pytest.mark.parametrize("document", ["README.md", ".env.example"])
def test_every_variable_is_documented(document: str) -> None:
    text = (ROOT / document).read_text()
    wanted = {f"VOCAL_{name.upper()}" for name in Config.model_fields if name != "settings"}
    assert wanted - set(re.findall(r"VOCAL_[A-Z_]+", text)) == set()
