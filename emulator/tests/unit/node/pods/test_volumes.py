"""Volumes as host directories, against a stand-in for the API server's client."""

import asyncio
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kube_emulator.client import (
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    ApiError,
    Object,
    Resource,
)
from kube_emulator.node.containers.environment import ConfigError, PodFacts
from kube_emulator.node.pods.volumes import API_ACCESS, TOKEN_DIRECTORY, MountError, Volumes, remove


class Server:
    """The process edge: hands out numbered tokens that live `lifetime`."""

    def __init__(self, lifetime: timedelta = timedelta(hours=1)) -> None:
        self.lifetime = lifetime
        self.requests: list[Object] = []
        self.refusals = 0
        self.objects: dict[tuple[Resource, str], Object] = {
            (SERVICE_ACCOUNTS, "default"): {"kind": "ServiceAccount"}
        }

    def ca_pem(self) -> str:
        return "CA"

    async def create(self, path: str, body: Object) -> Object:
        assert path == "/api/v1/namespaces/ns/serviceaccounts/default/token"
        if self.refusals:
            self.refusals -= 1
            raise ApiError(500, "InternalError", "not now")
        self.requests.append(body["spec"])
        expires = (datetime.now(UTC) + self.lifetime).isoformat()
        return {"status": {"token": f"token-{len(self.requests)}", "expirationTimestamp": expires}}

    async def fetch(self, resource: Resource, name: str) -> Object | None:
        return self.objects.get((resource, name))


def volumes(server: Server, home: Path, *sources: Object, **spec: Any) -> Volumes:
    meta = {"name": "p", "namespace": "ns", "uid": "u"}
    named = [{"name": f"v{n}"} | source for n, source in enumerate(sources)]
    spec.setdefault("automountServiceAccountToken", False)
    spec.setdefault("containers", [{"name": "c"}])
    facts = PodFacts({"metadata": meta, "spec": {"volumes": named} | spec}, "n", "h", "i")
    return Volumes(server, server.fetch, facts, home / "volumes", home / "claims")  # type: ignore[arg-type]


async def test_a_renewed_token_replaces_the_old_one_before_it_expires(tmp_path: Path) -> None:
    server = Server(lifetime=timedelta(seconds=1.3))
    source = {"serviceAccountToken": {"path": "t", "expirationSeconds": 600, "audience": "x"}}
    made = volumes(server, tmp_path, {"projected": {"sources": [source]}})
    await made.prepare()
    path = made.paths["v0"] / "t"
    assert path.read_text() == "token-1"
    assert server.requests[0] == {
        "audiences": ["x"],
        "expirationSeconds": 600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"},
    }
    renewing = asyncio.create_task(made.renew_tokens())
    async with asyncio.timeout(30):
        while True:
            if path.read_text() != "token-1":
                break
            await asyncio.sleep(0.02)
    renewing.cancel()
    assert path.read_text() == "token-2"
    assert [one.name for one in path.parent.iterdir()] == ["t"]


async def test_the_default_service_account_volume(tmp_path: Path) -> None:
    made = volumes(Server(), tmp_path, automountServiceAccountToken=None)
    await made.prepare()
    files = {one.name: one.read_text() for one in made.paths[API_ACCESS].iterdir()}
    assert files == {"ca.crt": "CA", "token": "token-1", "namespace": "ns"}
    [mount] = made.mounts({"name": "c"}, {})
    assert (mount.target, mount.read_only) == (TOKEN_DIRECTORY, True)


async def test_no_token_where_the_account_or_the_pod_says_so(tmp_path: Path) -> None:
    server = Server()
    server.objects[(SERVICE_ACCOUNTS, "default")]["automountServiceAccountToken"] = False
    made = volumes(server, tmp_path, automountServiceAccountToken=None)
    await made.prepare()
    assert made.paths == {}
    insists = volumes(server, tmp_path, automountServiceAccountToken=True)
    await insists.prepare()
    assert API_ACCESS in insists.paths


async def test_a_mount_that_admission_made_is_not_made_again(tmp_path: Path) -> None:
    mount = {"name": "v0", "mountPath": TOKEN_DIRECTORY}
    containers = [{"name": "c", "volumeMounts": [mount]}]
    made = volumes(
        Server(),
        tmp_path,
        {"emptyDir": {}},
        automountServiceAccountToken=None,
        containers=containers,
    )
    await made.prepare()
    assert set(made.paths) == {"v0"}


async def test_prepare_goes_on_where_it_failed(tmp_path: Path) -> None:
    server = Server()
    made = volumes(server, tmp_path, {"emptyDir": {}}, {"secret": {"secretName": "s"}})
    with pytest.raises(MountError) as refusal:
        await made.prepare()
    words = 'MountVolume.SetUp failed for volume "v1" : secret "s" not found'
    assert str(refusal.value) == words
    (made.paths["v0"] / "kept").touch()
    data = {"k": b64encode(b"v").decode()}
    server.objects[(SECRETS, "s")] = {"kind": "Secret", "data": data}
    await made.prepare()
    assert (made.paths["v0"] / "kept").exists()
    assert (made.paths["v1"] / "k").read_text() == "v"


async def test_a_refused_token_is_a_mount_error(tmp_path: Path) -> None:
    server = Server()
    server.refusals = 1
    source = {"serviceAccountToken": {"path": "t"}}
    made = volumes(server, tmp_path, {"projected": {"sources": [source]}})
    with pytest.raises(MountError, match="not now"):
        await made.prepare()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"configMap": {"name": "c", "items": [{"key": "x", "path": "x"}]}}, "key: x"),
        ({"configMap": {"name": "c", "items": [{"key": "k", "path": "../k"}]}}, "leads out"),
        ({"nfs": {"server": "s", "path": "/"}}, "volume type nfs is not supported"),
        ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, "type clusterTrustBundle is"),
        ({"hostPath": {"path": "/no/such", "type": "Directory"}}, "/no/such"),
        ({"persistentVolumeClaim": {"claimName": "no"}}, 'persistentvolumeclaim "no" not found'),
    ],
)
async def test_what_cannot_be_made_is_named(tmp_path: Path, source: Object, words: str) -> None:
    server = Server()
    server.objects[(CONFIG_MAPS, "c")] = {"kind": "ConfigMap", "data": {"k": "v"}}
    with pytest.raises(MountError, match=words):
        await volumes(server, tmp_path, source).prepare()
    assert not (tmp_path / "volumes" / "k").exists()


async def test_optional_sources_may_be_missing(tmp_path: Path) -> None:
    made = volumes(Server(), tmp_path, {"secret": {"secretName": "no", "optional": True}})
    await made.prepare()
    assert list(made.paths["v0"].iterdir()) == []


async def test_modes(tmp_path: Path) -> None:
    server = Server()
    server.objects[(CONFIG_MAPS, "c")] = {"kind": "ConfigMap", "data": {"a": "", "b": ""}}
    items = [{"key": "a", "path": "a", "mode": 0o400}, {"key": "b", "path": "b"}]
    made = volumes(
        server, tmp_path, {"configMap": {"name": "c", "items": items, "defaultMode": 0o640}}
    )
    await made.prepare()
    modes = {one.name: one.stat().st_mode & 0o777 for one in made.paths["v0"].iterdir()}
    assert modes == {"a": 0o400, "b": 0o640}


async def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    made = volumes(Server(), tmp_path, {"emptyDir": {}})
    await made.prepare()

    def mounted(**entry: str) -> Path:
        mount = {"name": "v0", "mountPath": "/m/", **entry}
        [found] = made.mounts({"volumeMounts": [mount]}, {"POD": "p1"})
        assert found.target == "/m"
        return found.source

    assert mounted(subPath="new/dir") == made.paths["v0"] / "new" / "dir"
    assert (made.paths["v0"] / "new" / "dir").is_dir()
    assert mounted(subPathExpr="of-$(POD)") == made.paths["v0"] / "of-p1"
    with pytest.raises(ConfigError, match="leads out"):
        mounted(subPath="../other")


def test_remove_takes_what_a_container_locked(tmp_path: Path) -> None:
    locked = tmp_path / "pod" / "dir"
    locked.mkdir(parents=True)
    (locked / "file").touch()
    locked.chmod(0o500)
    remove(tmp_path / "pod")
    remove(tmp_path / "pod")
    assert not (tmp_path / "pod").exists()
