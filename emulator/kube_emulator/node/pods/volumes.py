"""A pod's volumes as host directories, and their mounts in its containers.

ConfigMaps, Secrets and downward fields are written once; service account tokens are renewed.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kube_emulator.client import (
    CLAIMS,
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    ApiError,
    Client,
    Object,
    Resource,
)
from kube_emulator.node.containers.environment import (
    ConfigError,
    Fetch,
    PodFacts,
    contents,
    expand,
    field_value,
    resource_value,
)
from kube_emulator.node.containers.sandbox import Mount

TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
API_ACCESS = "kube-api-access"
DEFAULT_MODE = 0o644
RENEW_AT = 0.8


class MountError(Exception):
    """A volume cannot be set up yet; worded like the kubelet's FailedMount event."""


@dataclass(frozen=True)
class _Token:
    """A projected token file that must be renewed before it expires."""

    path: Path
    source: Object
    mode: int


@dataclass
class Volumes:
    """Prepares the volumes of one pod below `directory`; claims live below `claims`."""

    client: Client
    fetch: Fetch
    facts: PodFacts
    directory: Path
    claims: Path
    paths: dict[str, Path] = field(default_factory=dict)
    _tokens: list[_Token] = field(default_factory=list)
    _renew_at: float = float("inf")

    async def prepare(self) -> None:
        """Make every volume of the pod; idempotent, so it can be tried again.

        Raises:
            MountError: an object that a volume needs is missing.
        """
        for volume in await self._volumes():
            if volume["name"] in self.paths:
                continue
            try:
                self.paths[volume["name"]] = await self._make(volume)
            except (ConfigError, ApiError) as error:
                raise MountError(
                    f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
                ) from error

    def mounts(self, container: Object, variables: dict[str, str]) -> list[Mount]:
        """The container's mounts, the service account's included.

        Raises:
            ConfigError: a subPath leads out of its volume.
        """
        mounts = [self._mount(entry, variables) for entry in container.get("volumeMounts", [])]
        targets = {mount.target for mount in mounts}
        if API_ACCESS in self.paths and TOKEN_DIRECTORY not in targets:
            mounts.append(Mount(self.paths[API_ACCESS], TOKEN_DIRECTORY, read_only=True))
        return mounts

    async def renew_tokens(self) -> None:
        """Write new tokens before the old ones expire, until cancelled."""
        while self._tokens:
            await asyncio.sleep(max(1.0, self._renew_at - datetime.now(UTC).timestamp()))
            self._renew_at = float("inf")
            for token in self._tokens:
                try:
                    await self._write_token(token)
                except ApiError:
                    self._renew_at = datetime.now(UTC).timestamp() + 10

    async def _volumes(self) -> list[Object]:
        spec = self.facts.pod["spec"]
        volumes = list(spec.get("volumes", []))
        if await self._automount():
            volumes.append({"name": API_ACCESS, "projected": {"sources": await self._api_access()}})
        return volumes

    async def _automount(self) -> bool:
        spec = self.facts.pod["spec"]
        setting = spec.get("automountServiceAccountToken")
        if setting is None:
            account = await self.fetch(SERVICE_ACCOUNTS, spec.get("serviceAccountName", "default"))
            setting = (account or {}).get("automountServiceAccountToken")
        return bool(setting is not False and not self._mounted_everywhere())

    def _mounted_everywhere(self) -> bool:
        """A real API server's admission has added the token's mount to each container already."""
        spec = self.facts.pod["spec"]
        return all(
            any(mount["mountPath"] == TOKEN_DIRECTORY for mount in one.get("volumeMounts", []))
            for one in [*spec.get("initContainers", []), *spec["containers"]]
        )

    async def _api_access(self) -> list[Object]:
        return [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "optional": True}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]

    async def _make(self, volume: Object) -> Path:
        directory = self.directory / str(volume["name"])
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return await self._claim(volume["persistentVolumeClaim"]["claimName"])
        directory.mkdir(parents=True, exist_ok=True)
        if volume["name"] == API_ACCESS:
            _write(directory / "ca.crt", self.client.ca_pem().encode(), DEFAULT_MODE)
        [kind] = volume.keys() - {"name"} or {"emptyDir"}
        if kind == "emptyDir":
            directory.chmod(0o777)
        else:
            source = volume[kind]
            await self._fill(kind, source, directory, source.get("defaultMode", DEFAULT_MODE))
        return directory

    async def _claim(self, name: str) -> Path:
        claim = await self.fetch(CLAIMS, name)
        if claim is None:
            raise ConfigError(f'persistentvolumeclaim "{name}" not found')
        meta, spec = claim["metadata"], claim["spec"]
        path = self.claims / f"{meta['namespace']}_{name}_{meta['uid']}"
        path.mkdir(parents=True, exist_ok=True)
        if claim.get("status", {}).get("phase") != "Bound":
            capacity = spec.get("resources", {}).get("requests", {})
            status = {
                "phase": "Bound",
                "capacity": capacity,
                "accessModes": spec.get("accessModes", []),
            }
            await self.client.patch(
                CLAIMS.path(meta["namespace"], name, "status"), {"status": status}
            )
        return path

    async def _fill(self, kind: str, source: Object, directory: Path, mode: int) -> None:
        match kind:
            case "secret":
                name = source.get("secretName") or source["name"]
                await self._entries(SECRETS, name, source, directory, mode)
            case "configMap":
                await self._entries(CONFIG_MAPS, source["name"], source, directory, mode)
            case "downwardAPI":
                self._downward(source, directory, mode)
            case "serviceAccountToken":
                token = _Token(_inside(directory, source["path"]), source, mode)
                await self._write_token(token)
                self._tokens.append(token)
            case "projected":
                for part in source.get("sources", []):
                    [(inner, inner_source)] = part.items()
                    await self._fill(inner, inner_source, directory, mode)
            case _:
                raise ConfigError(f"volume type {kind} is not supported by this node")

    async def _entries(
        self, resource: Resource, name: str, source: Object, directory: Path, mode: int
    ) -> None:
        kind = resource.plural.removesuffix("s")
        found = await self.fetch(resource, name)
        if found is None:
            if source.get("optional"):
                return
            raise ConfigError(f'{kind} "{name}" not found')
        entries = contents(found)
        items = source.get("items") or [{"key": key, "path": key} for key in entries]
        for item in items:
            if item["key"] in entries:
                target = _inside(directory, item["path"])
                _write(target, entries[item["key"]], item.get("mode", mode))
            elif not source.get("optional"):
                raise ConfigError(f"references non-existent {kind} key: {item['key']}")

    def _downward(self, source: Object, directory: Path, mode: int) -> None:
        containers = {one["name"]: one for one in self.facts.pod["spec"]["containers"]}
        for item in source.get("items", []):
            if "fieldRef" in item:
                text = field_value(item["fieldRef"]["fieldPath"], self.facts)
            else:
                reference = item["resourceFieldRef"]
                text = resource_value(reference, containers[reference["containerName"]])
            _write(_inside(directory, item["path"]), text.encode(), item.get("mode", mode))

    async def _write_token(self, token: _Token) -> None:
        meta = self.facts.pod["metadata"]
        account = self.facts.pod["spec"].get("serviceAccountName", "default")
        audience = token.source.get("audience")
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": token.source.get("expirationSeconds", 3600),
                "boundObjectRef": bound,
            },
        }
        asked = datetime.now(UTC)
        answer = await self.client.create(
            SERVICE_ACCOUNTS.path(meta["namespace"], account, "token"), request
        )
        status = answer["status"]
        lifetime = datetime.fromisoformat(status["expirationTimestamp"]) - asked
        self._renew_at = min(self._renew_at, (asked + lifetime * RENEW_AT).timestamp())
        _write(token.path, status["token"].encode(), token.mode)

    def _mount(self, entry: Object, variables: dict[str, str]) -> Mount:
        path = self.paths[entry["name"]]
        sub_path = entry.get("subPath") or expand(entry.get("subPathExpr", ""), variables)
        if sub_path:
            path = _inside(path, sub_path)
            if not path.exists():
                path.mkdir(parents=True)
        return Mount(path, entry["mountPath"].rstrip("/"), bool(entry.get("readOnly")))


def _host_path(source: Object) -> Path:
    path, kind = Path(source["path"]), source.get("type", "")
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    if not path.exists():
        raise ConfigError(f"hostPath type check failed: {path} is not a directory")
    return path


def _inside(directory: Path, relative: str) -> Path:
    path = Path(os.path.normpath(directory / relative))
    if not path.is_relative_to(directory):
        raise ConfigError(f"path {relative} leads out of the volume")
    return path


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace in one step: a reader of a renewed token sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    partial.chmod(mode)
    os.replace(partial, path)


def remove(directory: Path) -> None:
    """Delete a pod's directory; files that a container wrote without permissions included."""

    def unlock(function: Callable[[str], object], path: str, _error: object) -> None:
        os.chmod(os.path.dirname(path), 0o700)
        function(path)

    if directory.exists():
        shutil.rmtree(directory, onerror=unlock)
