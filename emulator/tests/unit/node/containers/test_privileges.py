"""Who a container's processes are and what they may do, as the kernel sees it."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from kube_emulator.node.containers.environment import ConfigError
from kube_emulator.node.containers.images import Image
from kube_emulator.node.containers.privileges import DEFAULT_CAPABILITIES, Privileges
from kube_emulator.node.containers.sandbox import Mount
from kube_support.containers import Start, home, output, start

__all__ = ["home", "start"]

# Who it is, what it may do, and where it can write.
LIMITS = (
    "id -u; id -g; grep -E 'CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs' /proc/self/status | cut -f 2;"
    "for place in /tmp /var/tmp /dev/shm /v; do test -w $place && echo $place; done;"
)
BOUND = "grep CapBnd /proc/self/status | cut -f 2"
NOBODY = Privileges(65532, 65533, frozenset(), gain=False, read_only_root=True)
NONE, CHOWN = "0" * 16, "0" * 15 + "1"


@pytest.mark.parametrize(
    ("privileges", "bound", "limits"),
    [
        (NOBODY, NONE, ["65532", "65533", NONE, NONE, NONE, NONE, "1", "/dev/shm", "/v"]),
        (
            Privileges(0, 0, frozenset({"chown"})),
            CHOWN,
            ["0", "0", NONE, CHOWN, CHOWN, NONE, "0", "/tmp", "/var/tmp", "/dev/shm", "/v"],
        ),
    ],
)
async def test_they_are_those_of_every_process(
    home: Path, start: Start, privileges: Privileges, bound: str, limits: list[str]
) -> None:
    mounts = (Mount(home / "tmp", "/tmp", privileges.read_only_root), Mount(home / "volume", "/v"))
    first = await start("/bin/sh", "-c", LIMITS + BOUND, mounts=mounts, privileges=privileges)
    assert await first.wait() == 0
    assert output(home) == [*limits, bound]
    lasting = await start("/bin/sleep", "60", mounts=mounts, privileges=privileges)
    beside = await lasting.execute(["/bin/sh", "-c", f"{LIMITS} exit 1"])
    await lasting.stop(0)
    assert beside is not None
    assert beside.splitlines() == limits


async def test_a_read_only_root_has_room_for_what_is_mounted(home: Path, start: Start) -> None:
    """Also below what is mounted read-only itself."""
    mounts = (
        Mount(home / "volume", "/no/such", read_only=True),
        Mount(home / "tmp", "/no/such/place"),
        Mount(home / "file", "/etc/no-such-file"),
    )
    script = "echo x > /no/such/place/out && cat /etc/no-such-file; test -w /no/such || echo; pwd"
    process = await start("/bin/sh", "-c", script, mounts=mounts, privileges=NOBODY)
    assert await process.wait() == 0
    assert output(home) == ["from the host", "/"]
    assert (home / "tmp" / "out").read_text() == "x\n"


async def test_what_is_hidden_is_read_only_where_the_root_is(home: Path, start: Start) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as secret:
        test = ("/usr/bin/test", "-w", secret)
        fixed = await start(*test, masked=Path(secret), privileges=NOBODY)
        assert await fixed.wait() == 1
        free = await start(*test, masked=Path(secret))
        assert await free.wait() == 0


def of(container: dict[str, Any], image: Image, **pod: Any) -> Privileges:
    meta = {"name": "p", "namespace": "ns", "uid": "u"}
    body = {"metadata": meta, "spec": {"securityContext": pod}}
    return Privileges.of(body, {"name": "c", "securityContext": container}, image)


ROOTS, OWN = Image(("/bin/sh",)), Image(("/bin/app",), user=7, group=8)


def test_a_container_s_context_goes_before_its_pod_s_and_that_before_the_image() -> None:
    assert of({}, ROOTS) == Privileges()
    assert of({}, OWN) == Privileges(7, 8)
    assert of({}, OWN, runAsUser=5) == Privileges(5, 0)
    assert of({"runAsUser": 6}, OWN, runAsUser=5, runAsGroup=4) == Privileges(6, 4)
    bare = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    fixed = of({**bare, "capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}, OWN)
    assert fixed == Privileges(7, 8, frozenset({"sys_ptrace"}), gain=False, read_only_root=True)
    some = of({"capabilities": {"drop": ["NET_RAW"]}}, ROOTS).capabilities
    assert some == DEFAULT_CAPABILITIES - {"net_raw"}


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({}, "container has runAsNonRoot and image will run as root"),
        ({"runAsUser": 0}, "container's runAsUser breaks non-root policy"),
    ],
)
def test_who_must_not_be_root_does_not_start_as_root(container: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        of(container, ROOTS, runAsNonRoot=True)
    assert str(refusal.value) == f'{words} (pod: "p_ns(u)", container: c)'
    assert of(container | {"runAsUser": 5}, ROOTS, runAsNonRoot=True).user == 5
