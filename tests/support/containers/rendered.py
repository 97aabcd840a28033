"""A container of a pod, started from what is rendered as the embedded cluster's node starts it.

There is no cluster, so what volumes hold is the test's to say, and HOME is not set where neither
pod nor image sets it, though a container runtime would.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from finetune_local.images import our_images
from kube_emulator.node.containers import sandbox
from kube_emulator.node.containers.environment import PodFacts, expand, field_value
from kube_emulator.node.containers.images import Catalogue
from kube_emulator.node.containers.privileges import Privileges
from kube_emulator.node.containers.sandbox import READY, Mount
from kube_emulator.node.containers.surroundings import sandbox_of
from kube_emulator.node.pods.setting import PodSetting

Json = Any
NAMED = {"name": "a-pod", "namespace": "team", "uid": "uid-1"}
HERE = "127.0.0.1"


@dataclass
class Container:
    """One at work; `directory` is a host's for what belongs to its pod."""

    process: subprocess.Popen[bytes]
    directory: Path
    name: str

    @property
    def first(self) -> psutil.Process:
        """Its PID 1."""
        (inner,) = psutil.Process(self.process.pid).children()
        return inner

    @property
    def message(self) -> str:
        """What it left in its termination message."""
        return (self.directory / "containers" / self.name / "termination-log").read_text()

    def volume(self, name: str) -> Path:
        """Return where a volume lies on the host."""
        return _volume(self.directory, name)


def start(
    template: Json,
    name: str,
    directory: Path,
    *,
    log: Any = None,
    files: Mapping[str, Mapping[str, str]] | None = None,
    mounts: tuple[Mount, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Container:
    """Start a container of a pod's template and return once its command is executed.

    Args:
        directory: of the pod, whose containers share its volumes.
        log: where its output goes, as for `subprocess.Popen`.
        files: what lies in volumes, by the volume's name.
        mounts: more than the template has.
        environment: more than template and image set, or other than that.
    """
    pod = {**template, "metadata": {**NAMED, **template.get("metadata", {})}}
    spec = pod["spec"]
    both = [*spec.get("initContainers", []), *spec["containers"]]
    (container,) = (one for one in both if one["name"] == name)
    setting = _setting(pod, directory)
    image = setting.catalogue.resolve(container["image"])
    for volume in spec.get("volumes", []):
        place = _volume(directory, volume["name"])
        place.mkdir(parents=True, exist_ok=True)
        for file, text in (files or {}).get(volume["name"], {}).items():
            (place / file).write_text(text)
    mounted = [
        Mount(
            _volume(directory, one["name"]) / one.get("subPath", ""),
            one["mountPath"],
            one.get("readOnly", False),
        )
        for one in container.get("volumeMounts", [])
    ]
    privileges = Privileges.of(pod, container, image)
    view = sandbox_of(container, setting, image, privileges, [*mounted, *mounts])
    variables = _variables(container, setting.facts, image.environment) | dict(environment or {})
    ready, theirs = os.pipe()
    process = subprocess.Popen(
        view.command(container["command"]),
        env=variables,
        stdin=theirs,
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
    )
    os.close(theirs)
    with os.fdopen(ready) as told:
        said = next(told, "").strip()
        if said != READY:
            sandbox.check()  # says how this machine is made able to
            raise AssertionError(f"{said}\n{told.read()}")
    return Container(process, directory, name)


def _setting(pod: Json, directory: Path) -> PodSetting:
    directory.mkdir(parents=True, exist_ok=True)
    images = directory / "images.json"
    images.write_text(json.dumps(our_images()))
    none: Any = None
    setting = PodSetting(
        facts=PodFacts(pod, "a-node", HERE, HERE),
        volumes=none,
        fetch=none,
        catalogue=Catalogue.from_file(images),
        base_environment={},
        directory=directory,
        logs=directory,
        masked=directory / "containers",
        back_off_seconds=0,
        note=none,
        changed=none,
    )
    setting.hosts_file.write_text(f"{HERE} localhost {setting.hostname}\n")
    return setting


def _volume(directory: Path, name: str) -> Path:
    return directory / "volumes" / name


def _variables(container: Json, facts: PodFacts, base: Mapping[str, str]) -> dict[str, str]:
    variables = dict(base)
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            value = field_value(entry["valueFrom"]["fieldRef"]["fieldPath"], facts)
        else:
            value = expand(entry.get("value", ""), variables)
        variables[entry["name"]] = value
    return variables
