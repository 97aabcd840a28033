"""What all containers of one pod share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kube_emulator.client import Object
from kube_emulator.node.containers.environment import Fetch, PodFacts
from kube_emulator.node.containers.images import Catalogue
from kube_emulator.node.pods.volumes import Volumes

HOSTNAME_LENGTH = 63

Note = Callable[[str, str, str], Awaitable[None]]
"""Record an event about the pod: type, reason, message."""


@dataclass(frozen=True)
class PodSetting:
    """What all containers of a pod share."""

    facts: PodFacts
    volumes: Volumes
    fetch: Fetch
    catalogue: Catalogue
    base_environment: dict[str, str]
    directory: Path
    logs: Path
    masked: Path
    back_off_seconds: float
    note: Note
    changed: Callable[[], None]

    @property
    def pod(self) -> Object:
        return self.facts.pod

    @property
    def hostname(self) -> str:
        """The pod's hostname; a longer pod name is cut as the kubelet cuts it."""
        name = str(self.pod["spec"].get("hostname") or self.pod["metadata"]["name"])
        return name[:HOSTNAME_LENGTH].rstrip("-.")

    @property
    def hosts_file(self) -> Path:
        return self.directory / "etc-hosts"

    def container_directory(self, name: str) -> Path:
        """What belongs to one container's present run."""
        return self.directory / "containers" / name
