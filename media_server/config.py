"""What the environment and ``.env`` say, checked once, at start.

Each field is the variable ``VOCAL_`` + its name in capitals. The environment wins over ``.env``, and the command
line over both. Engines read their own settings (keys, URLs, model names) from the same mapping, `Config.settings`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from pipeline.engines import Kind
from pipeline.errors import VocalError
from signaling.auth import check_exposure
from signaling.ice import IceServer, parse_ice_servers
from signaling.origins import Origins

PREFIX = "VOCAL_"
SECRET = ("KEY", "SECRET", "TOKEN", "PASSWORD")


class ConfigError(Exception):
    """Say in one line per fault which variable is wrong, its value (never a secret's) and what is allowed."""


def _split(value: Any) -> Any:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


def _parse_ice(value: Any) -> Any:
    return parse_ice_servers(value) if isinstance(value, str) else value


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    Origins(origins, "")
    return origins


def _check_min(value: int, info: ValidationInfo) -> int:
    middle = info.data.get("endpoint_ms", value)
    if value > middle:
        raise ValueError(f"{value} is more than VOCAL_ENDPOINT_MS, which is {middle}")
    return value


def _check_max(value: int, info: ValidationInfo) -> int:
    middle = info.data.get("endpoint_ms", value)
    if value < middle:
        raise ValueError(f"{value} is less than VOCAL_ENDPOINT_MS, which is {middle}")
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Engine = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")]


class Config(BaseModel):
    """The process's configuration: frozen; a field's description is what an error says is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    host: str = Field("127.0.0.1", min_length=1, description="an address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="a port from 0 (any free one) to 65535")
    stt_port: int = Field(8001, ge=0, le=65535, description="a port from 0 (any free one) to 65535")
    llm_port: int = Field(8002, ge=0, le=65535, description="a port from 0 (any free one) to 65535")
    tts_port: int = Field(8003, ge=0, le=65535, description="a port from 0 (any free one) to 65535")
    insecure: bool = Field(False, description="1 or 0; 1 serves other machines without a key")
    api_keys: Words = Field((), repr=False, description="keys, separated by commas")
    operator_keys: Words = Field((), repr=False, description="keys, separated by commas")
    origins: Annotated[Words, AfterValidator(_check_origins)] = Field(
        (), description="origins such as https://example.org, separated by commas"
    )

    ice_servers: Annotated[tuple[IceServer, ...], BeforeValidator(_parse_ice)] = Field(
        (), description="stun: and turn: URLs, separated by commas, or JSON: a list of {urls, username, credential}"
    )
    turn_secret: str = Field("", repr=False, description="the secret shared with the TURN server")
    turn_ttl_s: int = Field(3600, ge=60, le=604_800, description="seconds from 60 to 604800")

    max_sessions: int = Field(64, ge=1, le=10_000, description="a number of sessions from 1 to 10000")
    max_loop_lag_ms: float = Field(100.0, ge=1, le=10_000, description="milliseconds from 1 to 10000")
    drain_s: float = Field(30.0, ge=0, le=86_400, description="seconds from 0 to 86400")

    endpoint_ms: int = Field(400, ge=100, le=5_000, description="milliseconds from 100 to 5000")
    endpoint_min_ms: Annotated[int, AfterValidator(_check_min)] = Field(
        200, ge=100, le=5_000, description="milliseconds from 100 to 5000"
    )
    endpoint_max_ms: Annotated[int, AfterValidator(_check_max)] = Field(
        1600, ge=100, le=10_000, description="milliseconds from 100 to 10000"
    )
    vad: Engine = Field("auto", description="an engine's name or auto")
    stt: Engine = Field("auto", description="an engine's name or auto")
    llm: Engine = Field("auto", description="an engine's name or auto")
    tts: Engine = Field("auto", description="an engine's name or auto")
    turn: Engine = Field("auto", description="an engine's name or auto")

    offline: bool = Field(False, description="1 or 0; 1 downloads no model")

    data_dir: Path = Field(Path("data"), description="a folder")
    database_url: str = Field("", repr=False, description="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: Literal["text", "json"] = Field("text", description="text or json")

    settings: Mapping[str, str] = Field(default_factory=dict, repr=False, description="everything, for the engines")

    def database(self) -> str:
        """Return where agents and voices are kept."""
        return self.database_url or f"sqlite:///{self.data_dir / 'vocal.db'}"

    def listens_on(self, service: Kind | None = None) -> tuple[int, str]:
        """Return the port of the server, or of a service alone, and the variable that sets it."""
        field = f"{service}_port" if service else "port"
        return int(getattr(self, field)), PREFIX + field.upper()

    def engine_names(self) -> dict[Kind, str]:
        """Return the wanted engine (or ``auto``) of each kind."""
        return {"vad": self.vad, "stt": self.stt, "llm": self.llm, "tts": self.tts, "turn": self.turn}


def environment(env_file: Path = Path(".env")) -> dict[str, str]:
    """Return the environment merged over ``.env``; empty variables are as if unset. Reads one file.

    Raises ConfigError where that file cannot be read.
    """
    try:
        merged = {**(dotenv_values(env_file) if env_file.is_file() else {}), **os.environ}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {env_file}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
    return {name: value for name, value in merged.items() if value}


def load(settings: Mapping[str, str]) -> Config:
    """Check ``settings`` (as of `environment`, command line merged in). Raises ConfigError."""
    names = [name for name in Config.model_fields if name != "settings"]
    given: dict[str, Any] = {n: settings[PREFIX + n.upper()] for n in names if settings.get(PREFIX + n.upper())}
    if "log_level" in given:
        given["log_level"] = given["log_level"].upper()
    try:
        config = Config(**given, settings=dict(settings))
        check_exposure(config.host, (*config.api_keys, *config.operator_keys), config.insecure)
    except VocalError as error:
        raise ConfigError(str(error)) from None
    except ValidationError as error:
        raise ConfigError("\n".join(dict.fromkeys(_explain(fault, settings) for fault in error.errors()))) from None
    return config


def _explain(fault: Any, settings: Mapping[str, str]) -> str:
    name = str(fault["loc"][0])
    variable = PREFIX + name.upper()
    if fault["type"] == "value_error":
        return f"{variable} is not usable: {str(fault['msg']).removeprefix('Value error, ')}"
    shown = "(hidden)" if any(word in variable for word in SECRET) else repr(settings.get(variable))
    return f"{variable}={shown} is not usable: it must be {Config.model_fields[name].description}"
