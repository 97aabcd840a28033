"""The namespaces and the root view of one container, as a command line for `unshare`.

The view is a tmpfs that holds a recursive bind of every top-level host directory. Where a mount
point does not exist on the host, the directories above it are rebuilt entry by entry in the tmpfs,
so nothing is ever created on the host.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kube_emulator.node.containers.privileges import Privileges

SETUP_FAILED = 125
READY = "ready"
SHARED_MEMORY = "/dev/shm"  # noqa: S108
# mount_setattr(AT_FDCWD, root, AT_RECURSIVE, {MOUNT_ATTR_RDONLY}): not every mount(8) that takes
# `ro=recursive` does anything about it
SET_READ_ONLY = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(442, -100, os.fsencode(sys.argv[1]), 0x8000, struct.pack("QQQQ", 1, 0, 0, 0), 32):
    sys.exit(f"mount_setattr: {os.strerror(ctypes.get_errno())}")
"""
NAMESPACES = ("--user", "--map-root-user", "--mount", "--uts", "--pid")
_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "mqueue"}
_DEVICES |= {"fd", "stdin", "stdout", "stderr", "kfd", "dri"}
REMEDIES = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


class SandboxError(Exception):
    """This machine cannot isolate pods; the message holds the command that enables it."""


@dataclass(frozen=True)
class Mount:
    """Show host path `source` at `target`, an absolute path in the container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Sandbox:
    """Everything about a container's surroundings.

    `root` is an empty directory of its own; `masked` is a host directory that it finds empty.
    """

    root: Path
    hostname: str
    mounts: Sequence[Mount]
    working_directory: str = "/"
    masked: Path | None = None
    privileges: Privileges = field(default_factory=Privileges)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The host command that runs `arguments` inside; its standard input must be a pipe's
        writing end.

        A line `READY` is written there when they are about to be executed, with everything around
        them in its place; if that cannot be, the reason is written instead. The command's exit code
        is that of `arguments`, 128 + n for signal n.
        """
        enter = _entered(self.root, self.working_directory, self.privileges)
        begin = f'echo {READY} >&0; exec </dev/null 2>&3 3>&-; exec "$@"'
        inner = (
            f"exec 2>&0\n"
            f"{{ {self._setup()} ; }} || exit {SETUP_FAILED}\n"
            f"exec {shlex.join([*enter, '/bin/sh', '-c', begin, 'sh', *arguments])}"
        )
        die_with_parent = [tool("setpriv"), "--pdeathsig", "KILL", "--"]
        # PID 1's parent must be a shell: `unshare --fork` reports a child's SIGKILL as exit code 1.
        # That shell's own stderr is dropped, it would add "Killed" to the container's log.
        outer = (
            f"exec 3>&2 2>/dev/null\n"
            f"{shlex.join([*die_with_parent, '/bin/sh', '-c', inner])}\n"
            f"exit $?"
        )
        return [
            *(*die_with_parent, tool("unshare"), *NAMESPACES, "--"),
            *("/bin/sh", "-c", outer),
        ]

    def _setup(self) -> str:
        mount = tool("mount")
        read_only = self.privileges.read_only_root
        mounts = sorted(self.mounts, key=lambda one: one.target.count("/"))
        lines = [
            shlex.join([tool("hostname"), self.hostname]),
            shlex.join([mount, "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(self.root)]),
        ]
        targets = {_resolved(one.target) for one in self.mounts} | {"/proc", SHARED_MEMORY}
        lines += _rebuilt(Path("/"), self.root, frozenset(targets))
        proc = shlex.quote(f"{self.root}/proc")
        memory = shlex.quote(f"{self.root}{SHARED_MEMORY}")
        lines.append(f"mkdir -p {proc} {memory}")
        for one in mounts:
            lines += _mount_point(one, self.root)
        if read_only:
            lines.append(_fixed(str(self.root)))
        # a container that masks parts of /proc may not mount a new one
        new_proc = f"{mount} -t proc proc {proc} 2>/dev/null || {mount} --rbind /proc {proc}"
        lines.append(f"{{ {new_proc}; }}")
        lines.append(f"{mount} -t tmpfs -o mode=1777 tmpfs {memory}")
        for one in mounts:
            lines += _bound(one, self.root)
        for one in mounts:
            if one.read_only:  # once what lies in it has its mount point
                lines.append(f"{mount} -o remount,bind,ro {_place(one, self.root)}")
        if self.masked is not None:
            # not seen where a mount above it hides it already
            hidden = shlex.quote(f"{self.root}{self.masked.resolve()}")
            empty = f"{mount} -t tmpfs -o mode=700{',ro' if read_only else ''} tmpfs {hidden}"
            lines.append(f"{{ [ ! -d {hidden} ] || {empty}; }}")
        # `set -e` has no effect on the left side of `||`, so each command asks for the one before
        return " &&\n".join(lines)


def _entered(root: Path, working_directory: str, who: Privileges) -> list[str]:
    """Go into a root view as the container's user, of whom its own namespace knows alone.

    To the host, and to the files of volumes, that is the node's own user.
    """
    return [
        *(tool("unshare"), "--user", f"--map-user={who.user}", f"--map-group={who.group}"),
        *("--keep-caps", f"--root={root}", f"--wd={working_directory}", "--"),
        *(tool("setpriv"), *who.options, "--"),
    ]


def check(remedies: Sequence[tuple[str, str, str]] = REMEDIES) -> None:
    """Try the namespaces that pods need.

    Args:
        remedies: a file, what it holds where it forbids them, and the command that allows them.

    Raises:
        SandboxError: they are not to be had.
    """
    isolated = [tool("unshare"), *NAMESPACES, "--fork", "/bin/sh", "-c"]
    mount = shlex.join([tool("mount"), "-t", "tmpfs", "tmpfs", "/mnt"])
    mount += f" && {_fixed('/mnt')}"
    enter = shlex.join([*_entered(Path("/"), "/", Privileges(user=1)), "true"])
    trial = subprocess.run(
        [*isolated, f"{mount} && {enter}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode == 0:
        return
    advice = [
        f"sudo {command}"
        for path, bad, command in remedies
        if os.path.exists(path) and Path(path).read_text().strip() == bad
    ]
    remedy = "; ".join(advice) or (
        "in a container, start it with --security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined, or --privileged"
    )
    raise SandboxError(
        f"user namespaces, which isolate the pods, are not available ({trial.stderr.strip()}); "
        f"enable them: {remedy}"
    )


def interpreter_mounts() -> list[Mount]:
    """This Python and its packages, where the pod's own /tmp would hide them."""
    paths = {Path(path).resolve() for path in [sys.prefix, sys.base_prefix, *sys.path] if path}
    hidden = sorted(path for path in paths if Path("/tmp") in path.parents and path.exists())  # noqa: S108
    return [Mount(path, str(path), read_only=True) for path in hidden]


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise SandboxError(f"{name} is missing; install util-linux, coreutils and hostname")
    return found


def _resolved(target: str) -> str:
    """`target` with the host's symlinks followed, as the root view keeps them (/var/run)."""
    return os.path.realpath(target)


def _rebuilt(directory: Path, root: Path, targets: frozenset[str]) -> Iterator[str]:
    """Commands that show host `directory` under `root`, with room for the mount points below it."""
    mount = tool("mount")
    below = {target for target in targets if _is_below(target, directory)}
    place = shlex.quote(f"{root}{directory}")
    if directory != Path("/") and all(os.path.exists(target) for target in below):
        yield f"mkdir -p {place} && {mount} --rbind {shlex.quote(str(directory))} {place}"
        return
    yield f"mkdir -p {place}"
    for entry in _entries(directory):
        if entry.path in targets or not _shown(entry):
            continue
        source, there = shlex.quote(entry.path), shlex.quote(f"{root}{entry.path}")
        if entry.is_symlink():
            yield shlex.join(["ln", "-s", os.readlink(entry.path), f"{root}{entry.path}"])
        elif entry.is_dir():
            yield from _rebuilt(Path(entry.path), root, targets)
        else:
            # what has gone since the look, another program's lock say, is no reason to fail
            yield f"{{ : > {there} && {mount} --bind {source} {there} || [ ! -e {source} ]; }}"


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    """In the order of names; what this user may not list, the pod does not see either."""
    try:
        return sorted(os.scandir(directory), key=lambda entry: entry.name)
    except PermissionError:
        return []


def _fixed(root: str) -> str:
    """A command that makes read-only what is mounted at `root` and below it, at once."""
    return shlex.join([sys.executable, "-I", "-S", "-c", SET_READ_ONLY, root])


def _place(one: Mount, root: Path) -> str:
    return shlex.quote(f"{root}{_resolved(one.target)}")


def _mount_point(one: Mount, root: Path) -> Iterator[str]:
    place = _place(one, root)
    if one.source.is_dir():
        yield f"mkdir -p {place}"
    else:
        parent = shlex.quote(os.path.dirname(f"{root}{_resolved(one.target)}"))
        yield f"mkdir -p {parent} && {{ [ -e {place} ] || : > {place}; }}"


def _bound(one: Mount, root: Path) -> Iterator[str]:
    yield from _mount_point(one, root)  # a mount above it has hidden the first one
    yield f"{tool('mount')} --rbind {shlex.quote(str(one.source))} {_place(one, root)}"


def _shown(entry: os.DirEntry[str]) -> bool:
    """Of /dev, what a container runtime shows, and accelerators."""
    if os.path.dirname(entry.path) != "/dev":
        return True
    return entry.name in _DEVICES or entry.name.startswith("nvidia")


def _is_below(target: str, directory: Path) -> bool:
    return Path(target).is_relative_to(directory) and Path(target) != directory
