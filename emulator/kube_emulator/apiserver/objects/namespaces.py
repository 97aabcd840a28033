"""What every namespace holds from the start, and emptying one that is deleted."""

from __future__ import annotations

import asyncio

from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.objects.deletion import DeleteOptions, delete
from kube_emulator.apiserver.objects.resources import Resources, Write
from kube_emulator.apiserver.objects.storage import Change
from kube_emulator.apiserver.wire.request import WriteOptions

INITIAL = ("default", "kube-system", "kube-public", "kube-node-lease")
_SERVER = WriteOptions("kube-controller-manager")


class NamespaceController:
    """Gives each namespace its ServiceAccount and CA, and finishes its deletion."""

    def __init__(self, resources: Resources, ca_certificate: str) -> None:
        self._resources = resources
        self._registry = resources.registry
        self._ca = ca_certificate
        self._changed = asyncio.Event()
        resources.store.on_change(self._on_change)

    def _kind(self, plural: str) -> Kind:
        kind = self._registry.find("", "v1", plural)
        assert kind is not None
        return kind

    def create_initial(self) -> None:
        for name in INITIAL:
            body = {"metadata": {"name": name}}
            self._resources.create(Write(self._kind("namespaces"), "", "", _SERVER), body)

    def _on_change(self, resource: str, change: Change) -> None:
        if resource == "/namespaces" and change.type == "ADDED":
            self._furnish(change.object["metadata"]["name"])
        elif change.type == "DELETED" and resource in ("/serviceaccounts", "/configmaps"):
            self._furnish(change.object["metadata"]["namespace"])
        self._changed.set()

    def _furnish(self, namespace: str) -> None:
        home = self._resources.store.get("/namespaces", "", namespace)
        if home is None or "deletionTimestamp" in home["metadata"]:
            return
        wanted: list[tuple[str, Object]] = [
            ("serviceaccounts", {"metadata": {"name": "default"}}),
            (
                "configmaps",
                {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self._ca}},
            ),
        ]
        for plural, body in wanted:
            kind = self._kind(plural)
            if not self._resources.store.get(kind.storage_key, namespace, body["metadata"]["name"]):
                self._resources.create(Write(kind, namespace, "", _SERVER), body)

    async def run(self) -> None:
        """Empty terminating namespaces, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for namespace in self._resources.store.list("/namespaces"):
                if "deletionTimestamp" in namespace["metadata"]:
                    self._empty(namespace)

    def _empty(self, namespace: Object) -> None:
        name = namespace["metadata"]["name"]
        left = 0
        for kind in self._registry.stored():
            if not kind.namespaced:
                continue
            for obj in self._resources.store.list(kind.storage_key, name):
                if "deletionTimestamp" not in obj["metadata"]:
                    target = obj["metadata"]["name"]
                    delete(self._resources, kind, name, target, DeleteOptions(), _SERVER)
            left += len(self._resources.store.list(kind.storage_key, name))
        if left == 0 and not namespace["metadata"].get("finalizers"):
            self._resources.store.remove("/namespaces", "", name)
