"""Which images the node can stand in for."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from finetune_local.node.images import Catalogue, UnknownImageError, split_reference


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("alpine", ("alpine", "latest")),
        ("alpine:3.10", ("alpine", "3.10")),
        ("ghcr.io/a/b:dev", ("ghcr.io/a/b", "dev")),
        ("localhost:5000/a", ("localhost:5000/a", "latest")),
        ("ghcr.io/a/b:dev@sha256:00", ("ghcr.io/a/b", "dev")),
    ],
)
def test_split_reference(reference: str, expected: tuple[str, str]) -> None:
    assert split_reference(reference) == expected


@pytest.mark.parametrize("tag", ["dev", version("finetune-operator")])
def test_our_images_run_the_installed_packages(tag: str) -> None:
    image = Catalogue().resolve(f"ghcr.io/finetune-dev/finetune-trainer:{tag}")
    assert image.entrypoint == (sys.executable, "-m", "finetune_trainer.launch")


@pytest.mark.parametrize("tag", ["0.0.0", "latest"])
def test_another_version_of_ours_is_not_the_installed_one(tag: str) -> None:
    with pytest.raises(UnknownImageError, match=f"finetune-trainer:{tag}: not found"):
        Catalogue().resolve(f"ghcr.io/finetune-dev/finetune-trainer:{tag}")


@pytest.mark.parametrize("reference", ["alpine:3.10", "docker.io/library/busybox"])
def test_shells_accept_every_tag(reference: str) -> None:
    assert Catalogue().resolve(reference).entrypoint == ("/bin/sh",)


def test_an_unknown_image_is_refused_like_a_registry_would() -> None:
    with pytest.raises(UnknownImageError, match='failed to resolve reference "nginx:latest"'):
        Catalogue().resolve("nginx")


def test_a_file_adds_images(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    path.write_text(json.dumps({"own": {"entrypoint": ["/bin/true"], "tags": ["1"]}}))
    catalogue = Catalogue.from_file(path)
    assert catalogue.resolve("own:1").entrypoint == ("/bin/true",)
    assert catalogue.resolve("alpine").entrypoint == ("/bin/sh",)
    with pytest.raises(UnknownImageError):
        catalogue.resolve("own:2")
