"""The operator's settings: environment variables FINETUNE_*, set by the chart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from finetune_operator.job.policy import Policy
from finetune_operator.logs import FORMATS, LEVELS


class InvalidSetting(Exception):
    """An environment variable that can not be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Durations are in seconds, as the names say; each field's variable is FINETUNE_<FIELD>."""

    trainer_image: str
    trainer_pull_secrets: tuple[str, ...] = ()  # names of Secrets in the jobs' namespaces
    heartbeat_seconds: float = 15
    progress_seconds: float = 30
    start_timeout_seconds: float = 600  # of pods, for a cause that the user must remove
    fence_timeout_seconds: float = 300  # for the last attempt's pods, after their grace period
    retry_base_seconds: float = 10
    retry_cap_seconds: float = 300
    max_infrastructure_attempts: int = 20
    watch_namespaces: tuple[str, ...] = ()  # none: every namespace
    watch_selector: str = ""  # of namespaces, by their labels; none: as they are named
    leader_lease: str = ""  # NAMESPACE/NAME; without it this operator believes to be the only one
    allowed_hosts: tuple[str, ...] = ()  # hosts, or suffixes such as *.example.com
    policy_host_path: tuple[str, ...] = ()
    policy_images: tuple[str, ...] = ()
    policy_service_accounts: tuple[str, ...] = ()
    policy_uris: tuple[str, ...] = ()
    namespace: str = ""  # of the operator's own pod
    service_account: str = ""  # that this pod runs as
    bind_address: str = "127.0.0.1"
    bind_port: int = 8080
    log_level: str = "INFO"
    log_format: str = "text"

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
        lease = str(values.get("leader_lease", ""))
        if lease and not all(lease.partition("/")):
            raise InvalidSetting(f"FINETUNE_LEADER_LEASE must be NAMESPACE/NAME, not {lease!r}")
        for name, allowed in (("log_level", LEVELS), ("log_format", FORMATS)):
            if (chosen := values.get(name, allowed[0])) not in allowed:
                words = " or ".join(allowed)
                raise InvalidSetting(f"FINETUNE_{name.upper()} must be {words}, not {chosen!r}")
        return cls(**values)  # type: ignore[arg-type]

    @property
    def policy(self) -> Policy:
        """Return what jobs may name outside themselves."""
        own = (self.namespace, self.service_account)
        return Policy(
            host_path=self.policy_host_path,
            images=self.policy_images,
            service_accounts=self.policy_service_accounts,
            uris=self.policy_uris,
            hosts=self.allowed_hosts,
            own_account=own if all(own) else None,
        )


def _value(variable: str, text: str, kind: str) -> object:
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == "str":
        return text
    try:
        number = float(text) if kind == "float" else int(text)
    except ValueError:
        raise InvalidSetting(f"{variable} must be a number, not {text!r}") from None
    if not 0 <= number < math.inf:
        raise InvalidSetting(f"{variable} must be 0 or more, not {text!r}")
    return number
