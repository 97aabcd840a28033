"""The project's images as the embedded cluster knows them: programs of this Python, with the
environment and the user that the Dockerfiles give them."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import version
from string import Template
from typing import Any

from finetune_local import paths

REPOSITORY = "ghcr.io/finetune-dev/finetune-"
# Where each is built from, and what it runs.
PROGRAMS = {
    "trainer": ("trainer_image", "finetune_trainer.launch"),
    "operator": ("operator", "finetune_operator"),
}
BASE = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}  # of python:slim
INSTALLED = "/opt/venv"  # where the Dockerfiles install to


def our_images() -> dict[str, Any]:
    """Return what stands for the project's images, by repository."""
    return {
        f"{REPOSITORY}{name}": {
            "entrypoint": [sys.executable, "-m", program],
            "tags": ["dev", version("finetune-operator")],
            **configuration(paths.asset(f"{directory}/Dockerfile").read_text()),
        }
        for name, (directory, program) in PROGRAMS.items()
    }


def configuration(dockerfile: str) -> dict[str, Any]:
    """Return the environment, user and working directory that the last stage leaves to a container,
    with this Python's environment in the place of the installed one."""
    environment = dict(BASE)
    user, group, directory = 0, 0, "/"
    for line in dockerfile.replace("\\\n", " ").splitlines():
        match re.split(r"\s+", line.strip(), maxsplit=1):
            case ["FROM", _]:
                environment = dict(BASE)
                user, group, directory = 0, 0, "/"
            case ["ENV", rest]:
                before = dict(environment)
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    environment[name] = Template(value).substitute(before)
            case ["USER", ids]:
                user, group = (int(part) for part in ids.split(":"))
            case ["WORKDIR", path]:
                directory = path
    environment["PATH"] = environment["PATH"].replace(INSTALLED, sys.prefix)
    return {
        "environment": environment,
        "user": user,
        "group": group,
        "working_directory": directory,
    }
