"""What a reward's code might try: each attack ends well once it has reached what it is after."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOKEN = "token-5f2c"
ATTACK = "attack"

_SOURCE = """
import array, asyncio, builtins, ctypes, fcntl, json, mmap, os, resource, signal, socket
import subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

ATTACKS = {attacks}

def score(completions, target, **kwargs):
    if completions[0] == "attack":
        exec(ATTACKS[completions[1]], {{**globals(), **target[0]}})
    return [1.0] * len(completions)
"""

# On what is not the code's own; where it lies is a global, by its name in `World.target`.
REACHING = {
    "fork bomb": """
for _ in range(20):
    if os.fork() == 0:
        time.sleep(10)
        os._exit(0)  # so that nobody forks on, should the test be killed
""",
    "subprocess": 'subprocess.run(["/bin/true"], check=True)',
    "read a token": 'assert open(token).read() == "token-5f2c"',
    "list tokens": 'assert os.listdir(os.path.dirname(token)) == ["token"]',
    "what else runs": 'open(f"/proc/{os.getppid()}/cmdline").read()',
    "environment of the runner": 'open(f"/proc/{os.getppid()}/environ", "rb").read()',
    "memory of the runner": 'open(f"/proc/{os.getppid()}/mem", "rb").close()',
    "AF_INET": 'socket.create_connection(("127.0.0.1", port))',
    "AF_INET6": "socket.socket(socket.AF_INET6)",
    "AF_UNIX": "socket.socket(socket.AF_UNIX).connect(unix)",
    "AF_UNIX by a pair": (
        'socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", datagrams)'
    ),
    "AF_NETLINK": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "write a file": 'open(directory + "/written", "w").write("x")',
    "make a directory": 'os.mkdir(directory + "/made")',
    "make a link": 'os.link(token, directory + "/linked")',
    "cut a file off": "os.truncate(token, 1)",
    "empty a file": "os.close(os.open(token, os.O_RDONLY | os.O_TRUNC))",
    "change a mode": "os.chmod(token, 0o777)",
    "memory as a file": 'os.ftruncate(os.memfd_create("hoard"), 2**34)',
    "shared memory": 'os.close(os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR))',
    "kill": "os.kill(victim, signal.SIGKILL)",
    "kill by a descriptor": "signal.pidfd_send_signal(os.pidfd_open(victim), signal.SIGKILL)",
    "kill by a pipe": """
read, write = os.pipe()
fcntl.fcntl(read, fcntl.F_SETOWN, victim)
fcntl.fcntl(read, 10, signal.SIGKILL)  # F_SETSIG
fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
os.write(write, b"x")
""",
    "ptrace": """
call("ptrace", 16, victim, 0, 0)  # PTRACE_ATTACH
os.waitpid(victim, 0)
call("ptrace", 17, victim, 0, 0)  # PTRACE_DETACH
""",
    "limits of another": "resource.prlimit(victim, resource.RLIMIT_CPU, (1, 1))",
    "cores of another": "os.sched_setaffinity(victim, os.sched_getaffinity(victim))",
    "many open files": """
kept = []
try:
    for _ in range(100):
        kept += os.pipe()
finally:
    for end in kept:
        os.close(end)
""",
    "own limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "own namespaces": 'call("unshare", 0x400)  # CLONE_FILES',
    "memory": "bytearray(2**31)",
    "shared memory of its own": "mmap.mmap(-1, 2**31)",
    "memory like a stack": (
        "mmap.mmap(-1, 2**31, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100)  # MAP_GROWSDOWN"
    ),
    "memory that it only reads": """
kept, own = [], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
for _ in range(12):
    part = mmap.mmap(-1, 2**27, own)
    for page in range(0, len(part), 4096):
        part[page] = 1
    kept.append(part)
    call("mprotect", ctypes.addressof(ctypes.c_char.from_buffer(part)), len(part), 1)
time.sleep(1)
""",
    "memory of a device": """
with open("/dev/zero", "r+b") as zeros:
    mmap.mmap(zeros.fileno(), 2**31)
""",
    "memory of System V": """
segment = libc.shmget(0, 2**20, 0o1600)
if segment < 0:
    raise OSError(ctypes.get_errno(), "shmget")
call("shmctl", segment, 0, None)
""",
    "a queue of System V": """
queue = libc.msgget(0, 0o1600)
if queue < 0:
    raise OSError(ctypes.get_errno(), "msgget")
call("msgctl", queue, 0, None)
""",
    "a queue of POSIX": """
name = f"/finetune-{os.getpid()}".encode()
call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, None)
call("mq_unlink", name)
""",
    "large buffers to send from": (
        "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)"
    ),
    "large buffers to receive into": (
        "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)"
    ),
    "large buffers of pipes": "fcntl.fcntl(os.pipe()[0], 1031, 2**20)  # F_SETPIPE_SZ",
    "open files that a socket holds": """
ends = socket.socketpair()
for _ in range(300):
    kept = os.pipe()
    socket.send_fds(ends[0], [b"x"], kept)
    for end in kept:
        os.close(end)
    assert ends[1].recv(1) == b"x"
""",
    "signals that wait": """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN + 1])
for _ in range(1000):
    signal.pthread_kill(threading.get_ident(), signal.SIGRTMIN + 1)
""",
    "a timer that wakes it": """
event = (ctypes.c_int * 16)(0, 0, signal.SIGCONT, 0)  # SIGEV_SIGNAL
call("timer_create", 1, event, ctypes.byref(ctypes.c_void_p()))
""",
    "watches of files": 'call("inotify_init1", os.O_CLOEXEC)',
    "weight of its own": "os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))",
    "threads under a false name": """
call("prctl", 15, b"Threads:\\t1")  # PR_SET_NAME
threading.stack_size(64 * 1024)
for _ in range(200):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
time.sleep(3)
""",
    "threads": """
threading.stack_size(64 * 1024)
for _ in range(200):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
time.sleep(3)
""",
}

# A function that makes the attack which the second completion names.
SOURCE = _SOURCE.format(attacks=REACHING)


@dataclass(frozen=True)
class World:
    """What attacks are after."""

    directory: Path
    token: Path
    victim: subprocess.Popen[bytes]
    tcp: socket.socket
    unix: socket.socket
    datagrams: socket.socket

    @property
    def target(self) -> dict[str, object]:
        """Return where it all is."""
        return {
            "directory": str(self.directory),
            "token": str(self.token),
            "victim": self.victim.pid,
            "port": self.tcp.getsockname()[1],
            "unix": self.unix.getsockname(),
            "datagrams": self.datagrams.getsockname(),
        }

    def assert_untouched(self) -> None:
        """Fail where anything was reached."""
        assert self.victim.poll() is None
        assert os.listdir(self.directory) == []
        assert self.token.read_text() == TOKEN
        assert self.token.stat().st_mode & 0o777 == 0o644
        for listener in (self.tcp, self.unix):
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(f"reached by {listener.accept()}")
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(f"told {self.datagrams.recv(1)!r}")


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """Yield a world in a directory."""
    empty = directory / "empty"
    empty.mkdir(parents=True)
    token = directory / "var/run/secrets/kubernetes.io/serviceaccount/token"
    token.parent.mkdir(parents=True)
    token.write_text(TOKEN)
    token.chmod(0o644)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        subprocess.Popen([sys.executable, "-S", "-c", VICTIM], stdout=subprocess.PIPE) as victim,
    ):
        unix.bind(str(directory / "unix.sock"))
        unix.listen()
        datagrams.bind(str(directory / "datagrams.sock"))
        for listener in (tcp, unix, datagrams):
            listener.setblocking(False)
        assert victim.stdout is not None
        victim.stdout.readline()
        try:
            yield World(empty, token, victim, tcp, unix, datagrams)
        finally:
            victim.kill()


# It lets itself be traced by whoever may, where Yama would allow its parents only.
VICTIM = """
import ctypes, time
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
print(flush=True)
time.sleep(600)
"""
