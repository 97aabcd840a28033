"""What all pods of the node share."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kube_emulator.client import ApiError, Client, Object, Resource
from kube_emulator.events import Recorder
from kube_emulator.node.containers.environment import ConfigError, Fetch
from kube_emulator.node.containers.images import Catalogue

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_IP = "127.0.0.1"


@dataclass(frozen=True)
class NodeContext:
    """The node's name, places and services; `masked` is hidden from pods."""

    name: str
    client: Client
    recorder: Recorder
    catalogue: Catalogue
    directory: Path
    masked: Path
    back_off_seconds: float
    host_ip: str = HOST_IP

    @property
    def base_environment(self) -> dict[str, str]:
        """What every container gets: a runtime's PATH, and where the API server is.

        Nothing of the node's own environment reaches a pod.
        """
        server = urlsplit(self.client.server)
        port = str(server.port or 443)
        return {
            "PATH": PATH,
            "KUBERNETES_SERVICE_HOST": server.hostname or HOST_IP,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
        }

    def fetcher(self, namespace: str) -> Fetch:
        """Get objects of one namespace by name; None for those that do not exist.

        A server that refuses or is away is a `ConfigError`, which the caller tries again.
        """

        async def fetch(resource: Resource, name: str) -> Object | None:
            try:
                return await self.client.get(resource.path(namespace, name))
            except ApiError as error:
                if error.status == 404:
                    return None
                raise ConfigError(f"failed to get {resource.plural} {name}: {error}") from error

        return fetch
