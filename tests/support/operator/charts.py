"""The chart as Helm renders it."""

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

import yaml

from finetune_local import binaries, paths

RELEASE = "finetune"
LEASE = f"{RELEASE}-finetune-operator"  # of the operators
QUICK = {
    "trainerImage": {"repository": "registry.example/trainer", "tag": "1"},
    "operator": {"progressSeconds": 0, "retryBaseSeconds": 0.2},
}


def rendered(
    *served: str, namespace: str = "team", only: Sequence[str] = (), **values: Any
) -> subprocess.CompletedProcess[str]:
    """Return what `helm template` says, for a cluster that serves these kinds too; `only` are the
    templates that are asked for."""
    return _templated(
        f"--namespace={namespace}",
        *(f"--api-versions={kind}" for kind in served),
        *(f"--show-only=templates/{template}.yaml" for template in only),
        *(f"--set-json={name}={json.dumps(value)}" for name, value in values.items()),
    )


def objects(*served: str, **asked: Any) -> list[dict[str, Any]]:
    """Return the objects that `rendered` prints."""
    done = rendered(*served, **asked)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def quick(namespace: str, *templates: str, **values: Any) -> list[dict[str, Any]]:
    """Return the objects of some templates, of an operator that wastes no time of a test's."""
    return objects(namespace=namespace, only=templates, **{**QUICK, **values})


@functools.cache
def _templated(*options: str) -> subprocess.CompletedProcess[str]:
    chart = paths.asset("charts/finetune-operator")
    return subprocess.run(
        [str(binaries.helm()), "template", RELEASE, str(chart), *options],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir()},
    )
