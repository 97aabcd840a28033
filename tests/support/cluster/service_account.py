"""What the kubelet mounts of a ServiceAccount, from the kubeconfig that holds its token."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from kube_emulator.node.containers.sandbox import Mount
from kube_emulator.node.pods.volumes import TOKEN_DIRECTORY


def service_account(kubeconfig: Path, directory: Path) -> tuple[Mount, dict[str, str]]:
    """Return the mount, whose files are put into `directory`, and where the API server is."""
    config = yaml.safe_load(kubeconfig.read_text())
    (cluster,) = (one["cluster"] for one in config["clusters"])
    (user,) = (one["user"] for one in config["users"])
    place = directory / "service-account"
    place.mkdir(exist_ok=True)
    data = cluster.get("certificate-authority-data")
    path = cluster.get("certificate-authority", "")
    (place / "ca.crt").write_bytes(base64.b64decode(data) if data else Path(path).read_bytes())
    (place / "token").write_text(user["token"])
    server = urlsplit(cluster["server"])
    where = {
        "KUBERNETES_SERVICE_HOST": server.hostname or "",
        "KUBERNETES_SERVICE_PORT": str(server.port or 443),
    }
    return Mount(place, TOKEN_DIRECTORY, read_only=True), where
