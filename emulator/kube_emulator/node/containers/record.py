"""What the node knows of one container, in the terms of core/v1 ContainerStatus."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from kube_emulator.timestamps import timestamp


class Kind(Enum):
    """How a container takes part in its pod's life."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"


@dataclass(frozen=True)
class Waiting:
    """Not running; `reason` is the kubelet's CamelCase word."""

    reason: str = "PodInitializing"
    message: str = ""

    def as_object(self) -> dict[str, Any]:
        return {"waiting": _filled(reason=self.reason, message=self.message)}


@dataclass(frozen=True)
class Running:
    """The main process has been executed."""

    started_at: datetime

    def as_object(self) -> dict[str, Any]:
        return {"running": {"startedAt": timestamp(self.started_at)}}


@dataclass(frozen=True)
class Terminated:
    """The main process has ended; a signal n gives exit code 128 + n, as a runtime reports it."""

    exit_code: int
    reason: str
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    container_id: str = ""

    def as_object(self) -> dict[str, Any]:
        return {
            "terminated": {"exitCode": self.exit_code}
            | _filled(
                reason=self.reason,
                message=self.message,
                startedAt=timestamp(self.started_at) if self.started_at else "",
                finishedAt=timestamp(self.finished_at) if self.finished_at else "",
                containerID=self.container_id,
            )
        }


State = Waiting | Running | Terminated


@dataclass
class ContainerRecord:
    """One container's present state and what came before it."""

    name: str
    image: str
    kind: Kind
    state: State = field(default_factory=Waiting)
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""

    def as_object(self) -> dict[str, Any]:
        """This record as a ContainerStatus."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image if self.container_id else "",
            "state": self.state.as_object(),
            "lastState": self.last.as_object() if self.last else {},
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        } | _filled(containerID=self.container_id)


def _filled(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
