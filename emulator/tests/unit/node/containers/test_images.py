"""Which images the node can stand in for."""

import json
from pathlib import Path

import pytest

from kube_emulator.node.containers.images import Catalogue, UnknownImageError, split_reference


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
