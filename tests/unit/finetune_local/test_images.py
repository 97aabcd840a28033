"""What the embedded cluster is told of this project: what stands for its images."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from finetune_local.images import configuration, our_images
from kube_emulator.node.containers.images import Catalogue, UnknownImageError

DOCKERFILE = """
FROM base AS build
ENV PATH=/nowhere LEFT=behind
USER 1:1
WORKDIR /src
FROM base
ENV PATH=/opt/venv/bin:$PATH \\
    QUOTED="two words"
# ENV COMMENTED=out
USER 65532:65533
WORKDIR /tmp
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    path = tmp_path / "images.json"
    path.write_text(json.dumps(our_images()))
    return Catalogue.from_file(path)


@pytest.mark.parametrize("tag", ["dev", version("finetune-operator")])
def test_our_images_run_the_installed_packages_as_their_user(
    catalogue: Catalogue, tag: str
) -> None:
    image = catalogue.resolve(f"ghcr.io/finetune-dev/finetune-trainer:{tag}")
    assert image.entrypoint == (sys.executable, "-m", "finetune_trainer.launch")
    assert (image.user, image.group, image.working_directory) == (65532, 65532, "/tmp")
    assert image.environment["HOME"] == "/tmp"


@pytest.mark.parametrize("tag", ["0.0.0", "latest"])
def test_another_version_of_ours_is_not_the_installed_one(catalogue: Catalogue, tag: str) -> None:
    with pytest.raises(UnknownImageError, match=f"finetune-trainer:{tag}: not found"):
        catalogue.resolve(f"ghcr.io/finetune-dev/finetune-trainer:{tag}")


def test_a_container_gets_what_the_last_stage_of_a_dockerfile_says() -> None:
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert configuration(DOCKERFILE) == {
        "environment": {"PATH": path, "QUOTED": "two words"},
        "user": 65532,
        "group": 65533,
        "working_directory": "/tmp",
    }


def test_no_stage_leaves_its_user_or_directory_to_another() -> None:
    bare = configuration(f"{DOCKERFILE}\nFROM base")
    assert (bare["user"], bare["group"], bare["working_directory"]) == (0, 0, "/")
