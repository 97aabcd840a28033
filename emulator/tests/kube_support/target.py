"""Start the API server that the conformance suite runs on, chosen by the environment.

- `KUBE_CONFORMANCE_KUBECONFIG`: nothing is started, the cluster of that kubeconfig is used;
- `KUBEBUILDER_ASSETS`: etcd and kube-apiserver from that directory, and kube-controller-manager
  where it is there (else our collector);
- neither: the embedded API server and our collector.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from finetune_local import binaries
from support.ports import free_port

_KUBECONFIG, _ASSETS = "KUBE_CONFORMANCE_KUBECONFIG", "KUBEBUILDER_ASSETS"


def described() -> str:
    """The target in words."""
    if path := os.environ.get(_KUBECONFIG):
        return f"the cluster of {path}"
    if path := os.environ.get(_ASSETS):
        return f"kube-apiserver of {path}"
    return "the embedded API server (an emulation)"


@contextmanager
def running(directory: Path) -> Iterator[Path]:
    """An administrator's kubeconfig of the target, which runs until the block ends."""
    if path := os.environ.get(_KUBECONFIG):
        yield Path(path)
    elif path := os.environ.get(_ASSETS):
        yield from _real_server(Path(path), directory)
    else:
        yield from _embedded_server(directory)


class Processes:
    """Child processes of the session, stopped in reverse order."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self._directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._running.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not become ready"
        time.sleep(0.1)


def _embedded_server(directory: Path) -> Iterator[Path]:
    processes = Processes(directory)
    config = directory / "admin.kubeconfig"
    try:
        processes.start(
            "apiserver", sys.executable, "-m", "kube_emulator.apiserver", "--dir", str(directory)
        )
        _wait(config.exists, "the embedded API server")
        processes.start("collector", *_collector(config))
        yield config
    finally:
        processes.stop()


def _collector(config: Path) -> list[str]:
    return [sys.executable, "-m", "kube_emulator.collector", "--kubeconfig", str(config)]


def _real_server(assets: Path, directory: Path) -> Iterator[Path]:
    processes = Processes(directory)
    token, etcd, peer, port = uuid.uuid4().hex, free_port(), free_port(), free_port()
    config = _write_credentials(directory, port, token)
    etcd_url, peer_url = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    try:
        processes.start(
            "etcd",
            str(assets / "etcd"),
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            "--unsafe-no-fsync",
        )
        processes.start(
            "apiserver", str(assets / "kube-apiserver"), *_flags(directory, port, etcd_url)
        )
        _wait(lambda: _healthy(config), "kube-apiserver", 120)
        if (assets / "kube-controller-manager").exists():
            processes.start(
                "controllers", str(assets / "kube-controller-manager"), *_controllers(config)
            )
        else:
            processes.start("collector", *_collector(config))
        yield config
    finally:
        processes.stop()


def _write_credentials(directory: Path, port: int, token: str) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    certificate.private_key_pem.write_to_path(directory / "server.key")
    authority.cert_pem.write_to_path(directory / "ca.crt")
    (directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (directory / "accounts.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    cluster = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority": str(directory / "ca.crt"),
    }
    config = directory / "admin.kubeconfig"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            }
        )
    )
    return config


def _flags(directory: Path, port: int, etcd_url: str) -> list[str]:
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--token-auth-file={directory / 'tokens.csv'}",
        f"--tls-cert-file={directory / 'server.pem'}",
        f"--tls-private-key-file={directory / 'server.key'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={directory / 'accounts.key'}",
        f"--service-account-signing-key-file={directory / 'accounts.key'}",
        f"--cert-dir={directory}",
    ]


def _controllers(config: Path) -> list[str]:
    wanted = (
        "garbage-collector-controller",
        "namespace-controller",
        "serviceaccount-controller",
        "root-ca-certificate-publisher-controller",
    )
    return [
        f"--kubeconfig={config}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--root-ca-file={config.parent / 'ca.crt'}",
        f"--controllers={','.join(wanted)}",
    ]


def _healthy(config: Path) -> bool:
    done = subprocess.run(
        [str(binaries.kubectl()), "--kubeconfig", str(config), "get", "--raw", "/readyz"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
