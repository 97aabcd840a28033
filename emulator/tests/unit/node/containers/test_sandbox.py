"""What a machine without user namespaces is told, and what a root view is made of."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kube_emulator.node.containers import sandbox
from kube_emulator.node.containers.privileges import Privileges
from kube_emulator.node.containers.sandbox import Mount, Sandbox, SandboxError, interpreter_mounts


def test_this_machine_has_them() -> None:
    sandbox.check()


@pytest.mark.parametrize(
    ("value", "remedy"),
    [("0", "enable them: sudo sysctl user.max=15000"), ("9", "enable them: in a container, start")],
)
def test_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, remedy: str
) -> None:
    setting = tmp_path / "max"
    setting.write_text(value + "\n")
    missing = (str(tmp_path / "none"), "0", "never")
    remedies = ((str(setting), "0", "sysctl user.max=15000"), missing)
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho unshare failed: Operation not permitted >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SandboxError) as refusal:
        sandbox.check(remedies)
    assert "(unshare failed: Operation not permitted)" in str(refusal.value)
    assert remedy in str(refusal.value)
    assert "never" not in str(refusal.value)


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.shutil, "which", lambda *_, **__: None)
    with pytest.raises(SandboxError, match="unshare is missing; install util-linux"):
        sandbox.check()


def test_the_interpreter_is_shown_only_where_tmp_would_hide_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hidden = Path("/tmp/some-venv-for-a-test")
    hidden.mkdir(exist_ok=True)
    try:
        monkeypatch.setattr(sys, "path", [*sys.path, str(hidden), "/tmp", "/tmp/absent"])
        targets = [one.target for one in interpreter_mounts()]
        assert str(hidden) in targets
        assert "/tmp" not in targets
        assert "/tmp/absent" not in targets
        assert all(target.startswith("/tmp/") for target in targets)
        assert all(one.read_only for one in interpreter_mounts())
    finally:
        hidden.rmdir()


def test_arguments_and_paths_are_quoted(tmp_path: Path) -> None:
    """Shell text from a manifest is data, never part of the set-up script."""
    root = tmp_path / "it's a root"
    (root).mkdir()
    nasty = "$(touch /no); 'x' \"y\" `z`"
    view = Sandbox(root, "h;reboot", [Mount(tmp_path, "/v $(a)")])
    process = subprocess.run(
        view.command(["/bin/echo", nasty]), stdin=subprocess.PIPE, capture_output=True, check=False
    )
    assert process.stdout.decode() == ""
    assert process.returncode == sandbox.SETUP_FAILED
    fixed = Privileges(read_only_root=True)
    plain = Sandbox(root, "h", [Mount(tmp_path, "/v $(a)")], privileges=fixed)
    process = subprocess.run(
        plain.command(["/bin/sh", "-c", 'ls -d "/v "*; echo "$1"; test -w /', "sh", nasty]),
        stdin=subprocess.PIPE,
        capture_output=True,
        check=False,
    )
    assert process.stdout.decode().splitlines() == ["/v $(a)", nasty]
    assert process.returncode == 1


def test_a_file_that_goes_away_meanwhile_is_left_out(tmp_path: Path) -> None:
    """Beside a mount point, files of the host are shown one by one; locks come and go there."""
    root = tmp_path / "root"
    root.mkdir()
    # /tmp may hold more names than a command line
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        host = Path(directory)
        (host / "stays").write_text("here")
        (host / "lock").touch()
        view = Sandbox(root, "h", [Mount(tmp_path, f"{host}/point")])
        command = view.command(["/bin/cat", f"{host}/stays"])
        (host / "lock").unlink()
        done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"here"), done.stderr
