"""Known image names and the host programs that stand for them."""

import json
from dataclasses import dataclass, field
from pathlib import Path


class UnknownImageError(Exception):
    """No program stands for this image; the message is worded like a container runtime's."""


@dataclass(frozen=True)
class Image:
    """What runs in place of an image: `tags` None accepts every tag."""

    entrypoint: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    tags: frozenset[str] | None = None
    user: int = 0
    group: int = 0
    working_directory: str = "/"


SHELLS = {"alpine": Image(("/bin/sh",)), "busybox": Image(("/bin/sh",))}


class Catalogue:
    """The images that this node can run."""

    def __init__(self, extra: dict[str, Image] | None = None) -> None:
        self._images = SHELLS | (extra or {})

    @classmethod
    def from_file(cls, path: Path) -> "Catalogue":
        """Add the images of a JSON file: {repository: {entrypoint, ...}}, fields as in `Image`."""
        extra = {
            repository: Image(
                tuple(entry["entrypoint"]),
                entry.get("environment", {}),
                frozenset(entry["tags"]) if "tags" in entry else None,
                entry.get("user", 0),
                entry.get("group", 0),
                entry.get("working_directory", "/"),
            )
            for repository, entry in json.loads(path.read_text()).items()
        }
        return cls(extra)

    def resolve(self, reference: str) -> Image:
        """Find the program for `repository[:tag][@digest]`.

        Raises:
            UnknownImageError: no such repository, or not this tag of it.
        """
        repository, tag = split_reference(reference)
        image = self._images.get(repository.removeprefix("docker.io/library/"))
        full = f"{repository}:{tag}"
        if image is None:
            known = ", ".join(sorted(self._images))
            raise UnknownImageError(
                f'failed to pull and unpack image "{full}": failed to resolve reference "{full}": '
                f"{full}: not found (images are not run here; known are {known})"
            )
        if image.tags is not None and tag not in image.tags:
            known = ", ".join(sorted(image.tags))
            raise UnknownImageError(
                f'failed to pull and unpack image "{full}": failed to resolve reference "{full}": '
                f"{full}: not found (known tags are {known})"
            )
        return image


def split_reference(reference: str) -> tuple[str, str]:
    """Split an image reference into repository and tag; the tag defaults to `latest`."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    base, _, tag = last.partition(":")
    return head + slash + base, tag or "latest"
