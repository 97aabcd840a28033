"""promtool, which judges rules as Prometheus does: the machine's own, or Debian's."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from finetune_local.paths import cache_dir


@functools.cache
def promtool() -> Path | None:
    """Return where it is; None on a machine that neither has it nor gets Debian's packages."""
    if found := shutil.which("promtool"):
        return Path(found)
    target = cache_dir() / "promtool"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.is_file() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
            _unpack(target)
    return target if target.is_file() else None


def _unpack(target: Path) -> None:
    """Take the program out of the package; nothing is installed."""
    with tempfile.TemporaryDirectory() as directory:
        quiet = {"cwd": directory, "capture_output": True, "timeout": 120}
        got = subprocess.run(["apt-get", "download", "prometheus"], **quiet)  # type: ignore[call-overload]
        packages = list(Path(directory).glob("prometheus_*.deb"))
        if got.returncode != 0 or not packages:
            return
        subprocess.run(["dpkg-deb", "-x", packages[0].name, "."], check=True, **quiet)  # type: ignore[call-overload]
        os.replace(shutil.copy(Path(directory, "usr/bin/promtool"), f"{target}.new"), target)
