"""The chart as a bench installs it."""

import json
import os
import subprocess
import tempfile
from typing import Any

import yaml

from finetune_local import binaries, paths

RELEASE = "under-test"
LEASE = f"{RELEASE}-finetune-operator"  # of the operators
VALUES = {
    "trainerImage": {"repository": "registry.example/trainer", "tag": "1"},
    "operator": {"progressSeconds": 0, "retryBaseSeconds": 0.2},
}


def rendered(namespace: str, *templates: str, **values: Any) -> list[dict[str, Any]]:
    """Return the objects of some of its templates."""
    values = {**VALUES, **values}
    done = subprocess.run(
        [
            *(str(binaries.helm()), "template", RELEASE),
            str(paths.asset("charts/finetune-operator")),
            f"--namespace={namespace}",
            *(f"--set-json={name}={json.dumps(value)}" for name, value in values.items()),
            *(f"--show-only=templates/{template}.yaml" for template in templates),
        ],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir()},
    )
    return [body for body in yaml.safe_load_all(done.stdout) if body]
