"""Real sandboxes: what a container sees, and how it ends."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kube_emulator.node.containers.process import ContainerProcess, StartError
from kube_emulator.node.containers.sandbox import READY, Mount, Sandbox
from kube_support.containers import PATH, Start, home, output, start

__all__ = ["home", "start"]


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.02)


async def test_a_container_sees_its_own_names_and_files(home: Path, start: Start) -> None:
    volume = Mount(home / "volume", "/no/such/place")
    one_file = Mount(home / "file", "/etc/hosts")
    script = (
        "hostname; echo $$; cat /etc/hosts; echo; pwd; echo x > /no/such/place/out; echo y > /tmp/t"
    )
    process = await start(
        "/bin/sh", "-c", script, mounts=(volume, one_file), working_directory="/usr"
    )
    assert await process.wait() == 0
    assert output(home) == ["a-pod", "1", "from the host", "/usr"]
    assert (home / "volume" / "out").read_text() == "x\n"
    assert (home / "tmp" / "t").read_text() == "y\n"
    assert not Path("/no").exists()
    assert not list((home / "root").iterdir())


async def test_a_volume_may_lie_in_a_volume(home: Path, start: Start) -> None:
    (home / "volume" / "a").write_text("outer")
    inner = home / "inner"
    inner.mkdir()
    (inner / "b").write_text("inner")
    mounts = (Mount(inner, "/v/deep/er"), Mount(home / "volume", "/v"))
    process = await start("/bin/cat", "/v/a", "/v/deep/er/b", mounts=mounts)
    assert await process.wait() == 0
    assert output(home) == ["outerinner"]


async def test_a_mount_point_behind_a_symlink(home: Path, start: Start) -> None:
    """/var/run is a link to /run on most hosts, and must not be replaced by a directory."""
    (home / "volume" / "token").write_text("t")
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    process = await start("/bin/cat", f"{where}/token", mounts=(Mount(home / "volume", where),))
    assert await process.wait() == 0
    assert output(home) == ["t"]


async def test_shared_memory_is_the_containers_own(home: Path, start: Start) -> None:
    script = "touch /dev/shm/mine; ls /dev/shm; test -c /dev/null"
    for mounts in ((), (Mount(home / "file", "/dev/termination-log"),)):
        process = await start("/bin/sh", "-c", script, mounts=mounts)
        assert await process.wait() == 0
    assert output(home) == ["mine", "mine"]
    assert not Path("/dev/shm/mine").exists()
    volume = Mount(home / "volume", "/dev/shm")
    process = await start("/bin/sh", "-c", "touch /dev/shm/kept", mounts=(volume,))
    assert await process.wait() == 0
    assert (home / "volume" / "kept").exists()


async def test_read_only_is_read_only(home: Path, start: Start) -> None:
    mount = Mount(home / "volume", "/v", read_only=True)
    process = await start("/bin/sh", "-c", "echo x > /v/x", mounts=(mount,))
    assert await process.wait() != 0
    assert not (home / "volume" / "x").exists()


async def test_a_masked_directory_is_empty(home: Path, start: Start) -> None:
    # not in /tmp, which every container has of its own, wherever this checkout lies
    secret = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        (secret / "key").write_text("k")
        shown = await start("/bin/ls", str(secret))
        assert await shown.wait() == 0
        hidden = await start("/bin/ls", str(secret), masked=secret)
        assert await hidden.wait() == 0
    finally:
        (secret / "key").unlink()
        secret.rmdir()
    assert output(home) == ["key"]


async def test_only_given_variables_reach_a_container(
    home: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    code = "import os; print(sorted(os.environ))"
    process = await start(sys.executable, "-c", code, environment={"PATH": PATH, "A": "b"})
    assert await process.wait() == 0
    assert output(home) == ["['A', 'LC_CTYPE', 'PATH', 'PWD']"]


async def test_processes_outside_cannot_be_seen(home: Path, start: Start) -> None:
    process = await start("/bin/sh", "-c", "cd /proc; echo [0-9]*")
    assert await process.wait() == 0
    assert output(home) == ["1"]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 143", 143),
        ("sh -c 'kill -SEGV $$'", 139),
    ],
)
async def test_exit_codes(start: Start, script: str, code: int) -> None:
    process = await start("/bin/sh", "-c", script)
    assert await process.wait() == code


async def test_output_is_labelled_by_stream_and_nothing_is_added(home: Path, start: Start) -> None:
    process = await start("/bin/sh", "-c", "echo out; echo err >&2; exec sleep 60")
    await until(lambda: len(output(home)) == 2)
    process.signal(signal.SIGKILL)
    assert await process.wait() == 137
    lines = sorted(line.split(" ", 1)[1] for line in (home / "log").read_text().splitlines())
    assert lines == ["stderr F err", "stdout F out"]


async def test_stop_asks_first(start: Start) -> None:
    code = "import signal; signal.signal(15, lambda *_: exit(7)); print('up', flush=True)"
    process = await start(sys.executable, "-c", f"{code}; signal.pause()")
    await asyncio.sleep(0.5)
    await process.stop(30)
    assert await process.wait() == 7


async def test_stop_kills_what_does_not_listen(start: Start) -> None:
    """`sleep` as PID 1 has no SIGTERM handler, so it ignores it, as in any container."""
    process = await start("/bin/sleep", "60")
    await process.stop(0.2)
    assert await process.wait() == 137


async def test_the_main_process_takes_its_children_along(home: Path, start: Start) -> None:
    mark = f"sleep 6{os.getpid()}"
    process = await start("/bin/sh", "-c", f"setsid {mark} & echo up; wait")
    await until(lambda: bool(output(home)))
    assert process.main_pid is not None
    os.kill(process.main_pid, signal.SIGKILL)
    assert await process.wait() == 137
    assert not _running(mark)


async def test_pods_die_with_the_node(home: Path) -> None:
    """The node's death by SIGKILL leaves nothing running."""
    mark = f"7{os.getpid()}"
    code = f"""
import asyncio
from pathlib import Path
from kube_emulator.node.containers.process import ContainerProcess
from kube_emulator.node.containers.sandbox import Sandbox
async def main():
    sandbox = Sandbox(Path({str(home / "root")!r}), "p", [])
    arguments = ["/bin/sleep", "{mark}"]
    await ContainerProcess.start(sandbox, arguments, {{}}, Path({str(home / "log")!r}))
    print("up", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert node.stdout is not None
    assert await node.stdout.readline() == b"up\n"
    assert _running(f"/bin/sleep {mark}")
    node.kill()
    await node.wait()
    await until(lambda: not _running(f"/bin/sleep {mark}"))


async def test_a_start_that_is_cancelled_leaves_no_process(home: Path) -> None:
    """A pod may be deleted at any moment, also before its process is known to anyone."""

    class Silent(Sandbox):
        """One that never says that it is ready."""

        def command(self, arguments: Sequence[str]) -> list[str]:
            return [part.replace(f"echo {READY} >&0", ":") for part in super().command(arguments)]

    mark = f"/bin/sleep 8{os.getpid()}"
    sandbox = Silent(home / "root", "a-pod", [Mount(home / "tmp", "/tmp")])
    starting = asyncio.create_task(
        ContainerProcess.start(sandbox, mark.split(), {"PATH": PATH}, home / "log")
    )
    await until(lambda: _running(mark))
    starting.cancel()
    await until(lambda: not _running(mark))


async def test_a_sandbox_that_cannot_be_made_says_why(home: Path, start: Start) -> None:
    with pytest.raises(StartError, match="missing"):
        await start("/bin/true", mounts=(Mount(home / "missing", "/v"),))
    with pytest.raises(StartError, match="/no/such"):
        await start("/bin/true", working_directory="/no/such")


async def test_memory_counts_all_processes(home: Path, start: Start) -> None:
    code = "import os, time; x = bytearray(64 << 20); os.fork(); x[:] = b'1' * len(x)"
    code += "; print(1, flush=True); time.sleep(60)"
    process = await start(sys.executable, "-c", code)
    await until(lambda: len(output(home)) == 2)
    assert process.memory() > 128 << 20
    await process.stop(0)
    assert process.memory() == 0


async def test_execute_runs_beside_the_main_process(home: Path, start: Start) -> None:
    process = await start("/bin/sleep", "60", mounts=(Mount(home / "volume", "/v"),))
    assert await process.execute(["/bin/sh", "-c", "hostname > /v/name"]) is None
    assert (home / "volume" / "name").read_text() == "a-pod\n"
    assert await process.execute(["/bin/sh", "-c", "echo not yet; exit 1"]) == "not yet\n"
    await process.stop(0)


def _running(mark: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line == mark:
                return True
    return False
