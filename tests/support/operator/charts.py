"""The chart as Helm renders it, as release `finetune` in namespace `team`."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from finetune_local.binaries import helm

CHART = Path(__file__).parents[3] / "charts" / "finetune-operator"


def rendered(*served: str, **values: Any) -> subprocess.CompletedProcess[str]:
    """Return what `helm template` says, for a cluster that serves these kinds too."""
    kinds = [f"--api-versions={kind}" for kind in served]
    return _templated(*kinds, *(f"--set-json={k}={json.dumps(v)}" for k, v in values.items()))


def objects(*served: str, **values: Any) -> list[dict[str, Any]]:
    """Return the objects of a release."""
    done = rendered(*served, **values)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


@functools.cache
def _templated(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(helm()), "template", "finetune", str(CHART), "--namespace=team", *arguments]
    return subprocess.run(command, capture_output=True, text=True)
