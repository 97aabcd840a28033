"""Start the API server that the conformance suite runs on, chosen by the environment.

- `KUBE_CONFORMANCE_KUBECONFIG`: nothing is started, the cluster of that kubeconfig is used;
- `KUBEBUILDER_ASSETS`: etcd and kube-apiserver from that directory, and kube-controller-manager
  where it is there (else the emulator's collector), training-operator and its CRD where asked;
- neither: the emulator's API server and collector.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from finetune_local import binaries
from kube_emulator.training_operator.ports import held_port, number_of
from kube_support import processes

_KUBECONFIG, _ASSETS = "KUBE_CONFORMANCE_KUBECONFIG", "KUBEBUILDER_ASSETS"
_PYTORCHJOBS = "kubeflow.org_pytorchjobs.yaml"

# A pod of the embedded node knows the names of its namespace's Services from a file of hosts, which
# the nslookup of training-operator's own template does not read.
_INIT_CONTAINER = """
- name: init-pytorch
  image: {{.InitContainerImage}}
  command:
    - sh
    - -c
    - for i in $(seq {{.MaxTries}}); do getent hosts {{.MasterAddr}} && exit; sleep 1; done; exit 1
"""


def described() -> str:
    """The target in words."""
    if path := os.environ.get(_KUBECONFIG):
        return f"the cluster of {path}"
    if path := os.environ.get(_ASSETS):
        return f"kube-apiserver of {path}"
    return "the emulator"


@contextmanager
def running(directory: Path) -> Iterator[Path]:
    """An administrator's kubeconfig of the target, which runs until the block ends."""
    if path := os.environ.get(_KUBECONFIG):
        yield Path(path)
    elif path := os.environ.get(_ASSETS):
        yield from _real_server(Path(path), directory)
    else:
        yield from _emulated_server(directory)


@contextmanager
def with_training_operator(directory: Path) -> Iterator[Path | None]:
    """An administrator's kubeconfig of what `KUBEBUILDER_ASSETS` holds, training-operator included,
    all of which runs until the block ends; None where there is no training-operator."""
    if (operator := real_training_operator()) is None:
        yield None
        return
    with running(directory) as config, processes.running(directory) as started:
        template = directory / "init-container.yaml"
        template.write_text(_INIT_CONTAINER)
        crd = operator.with_name(_PYTORCHJOBS)
        _kubectl(config, "apply", "--server-side", f"--filename={crd}")
        processes.until(lambda: _kubectl(config, "get", "pytorchjobs"), "the CRD")
        flag = f"--pytorch-init-container-template-file={template}"
        start_training_operator(started, config, flag)
        yield config


def start_training_operator(started: processes.Processes, config: Path, *flags: str) -> None:
    """Start that of `KUBEBUILDER_ASSETS`, with flags of its own, or else the stand-in."""
    operator, access = real_training_operator(), f"--kubeconfig={config}"
    if operator is None:
        started.component("training_operator", access)
        return
    no_ports = ("--metrics-bind-address=0", "--health-probe-bind-address=0")
    command = (str(operator), access, "--enable-scheme=pytorchjob", *no_ports, *flags)
    started.start(operator.name, *command)


def real_training_operator() -> Path | None:
    """The training-operator in `KUBEBUILDER_ASSETS`; None where there is none."""
    path = Path(os.environ.get(_ASSETS, ".")) / "training-operator"
    return path if path.is_absolute() and path.exists() else None


def _emulated_server(directory: Path) -> Iterator[Path]:
    with processes.running(directory) as started:
        config = started.api_server(directory)
        started.component("collector", f"--kubeconfig={config}")
        yield config


def _real_server(assets: Path, directory: Path) -> Iterator[Path]:
    with held_port() as etcd, held_port() as peer, held_port() as port:
        yield from _server_on(assets, directory, *map(number_of, (etcd, peer, port)))


def _server_on(assets: Path, directory: Path, etcd: int, peer: int, port: int) -> Iterator[Path]:
    config = _write_credentials(directory, port, uuid.uuid4().hex)
    etcd_url, peer_url = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    with processes.running(directory) as started:
        started.start(
            "etcd",
            str(assets / "etcd"),
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            "--unsafe-no-fsync",
        )
        server = str(assets / "kube-apiserver")
        started.start("apiserver", server, *_flags(directory, port, etcd_url))
        processes.until(lambda: _healthy(config), "kube-apiserver", 120)
        manager = assets / "kube-controller-manager"
        if manager.exists():
            started.start("controllers", str(manager), *_controllers(config))
        else:
            started.component("collector", f"--kubeconfig={config}")
        yield config


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
        "deployment-controller",
        "replicaset-controller",
        "resourcequota-controller",
    )
    return [
        f"--kubeconfig={config}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--root-ca-file={config.parent / 'ca.crt'}",
        f"--controllers={','.join(wanted)}",
    ]


def _healthy(config: Path) -> bool:
    return _kubectl(config, "get", "--raw", "/readyz")


def _kubectl(config: Path, *arguments: str) -> bool:
    """Tell whether a command succeeded."""
    command = (str(binaries.kubectl()), "--kubeconfig", str(config), *arguments)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
