"""The operator's settings: environment variables FINETUNE_*, set by the chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


class InvalidSetting(Exception):
    """An environment variable that can not be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Durations are in seconds, as the names say; each field's variable is FINETUNE_<FIELD>."""

    trainer_image: str
    heartbeat_seconds: float = 15
    progress_seconds: float = 30
    start_timeout_seconds: float = 600  # of pods, for a cause that the user must remove
    fence_timeout_seconds: float = 300  # for the last attempt's pods, after their grace period
    retry_base_seconds: float = 10
    retry_cap_seconds: float = 300
    max_infrastructure_attempts: int = 20
    watch_namespaces: tuple[str, ...] = ()  # none: every namespace
    allowed_hosts: tuple[str, ...] = ()  # hosts, or suffixes such as *.example.com
    bind_address: str = "127.0.0.1"
    bind_port: int = 8080
    relist_seconds: float = 300
    log_level: str = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read every variable that is set. Raises InvalidSetting naming the one that is wrong."""
        values: dict[str, object] = {}
        for field in fields(cls):
            variable = f"FINETUNE_{field.name.upper()}"
            if text := environment.get(variable, ""):
                values[field.name] = _value(variable, text, str(field.type))
        if not values.get("trainer_image"):
            raise InvalidSetting("FINETUNE_TRAINER_IMAGE must name the trainer's image")
        return cls(**values)  # type: ignore[arg-type]


def _value(variable: str, text: str, kind: str) -> object:
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == "str":
        return text
    try:
        number = float(text) if kind == "float" else int(text)
    except ValueError:
        raise InvalidSetting(f"{variable} must be a number, not {text!r}") from None
    if number < 0:
        raise InvalidSetting(f"{variable} must not be negative, not {text!r}")
    return number
