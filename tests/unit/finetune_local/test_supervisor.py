"""What the embedded cluster is told of this project: programs for its images."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from finetune_local.supervisor import our_images
from kube_emulator.node.containers.images import Catalogue, UnknownImageError


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    path = tmp_path / "images.json"
    path.write_text(json.dumps(our_images()))
    return Catalogue.from_file(path)


@pytest.mark.parametrize("tag", ["dev", version("finetune-operator")])
def test_our_images_run_the_installed_packages(catalogue: Catalogue, tag: str) -> None:
    image = catalogue.resolve(f"ghcr.io/finetune-dev/finetune-trainer:{tag}")
    assert image.entrypoint == (sys.executable, "-m", "finetune_trainer.launch")


@pytest.mark.parametrize("tag", ["0.0.0", "latest"])
def test_another_version_of_ours_is_not_the_installed_one(catalogue: Catalogue, tag: str) -> None:
    with pytest.raises(UnknownImageError, match=f"finetune-trainer:{tag}: not found"):
        catalogue.resolve(f"ghcr.io/finetune-dev/finetune-trainer:{tag}")
