"""What the filter lets through on both architectures, by a small machine that runs it as the kernel
does. The numbers here are written down once more, from the kernel's tables."""

from __future__ import annotations

import platform
import signal
import socket
import struct

import pytest

from finetune_rewards.confine.seccomp import available, program
from finetune_rewards.confine.syscalls import ALLOWED
from support.rewards.refused_calls import without

PID = 4711
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = tuple(AUDIT_ARCH)
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
CLONE_THREAD_FLAGS = 0x3D0F00  # as pthread_create asks
# CLONE_NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET
NAMESPACES = [0x20000, *(1 << bit for bit in range(25, 31))]


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """Run the filter (classic BPF) on a call."""
    code = program(machine, PID)
    arch = AUDIT_ARCH[machine] if architecture is None else architecture
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<iIQ6Q", number, arch, 0, *(word % 2**64 for word in words))
    accumulator, at = 0, 0
    while True:
        operation, then, otherwise, value = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        match operation:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= value
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += then if accumulator == value else otherwise
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                at += then if accumulator >= value else otherwise
            case 0x06:  # BPF_RET | BPF_K
                return int(value)
            case _:
                raise AssertionError(f"no such instruction: {operation:#x}")


# fork vfork execve execveat ptrace socket connect bind sendmmsg mount umount2 unshare setns chroot
# bpf keyctl add_key process_vm_readv process_vm_writev memfd_create open_by_handle_at init_module
# kexec_load perf_event_open userfaultfd setrlimit fchmodat fchownat setxattr utimensat truncate
# rt_sigqueueinfo tkill sched_setaffinity setuid shmget mq_open personality reboot setsockopt
# sendmsg recvmsg timer_create setpriority msgget semget inotify_init1 setsid setpgid vmsplice
REFUSED = {
    "x86_64": [
        *(57, 58, 59, 322, 101, 41, 42, 49, 307, 165, 166, 272, 308, 161),
        *(321, 250, 248, 310, 311, 319, 304, 175),
        *(246, 298, 323, 160, 268, 260, 188, 280, 76),
        *(129, 200, 203, 105, 29, 240, 135, 169),
        *(54, 46, 47, 222, 141, 68, 64, 294, 112, 109, 278),
    ],
    "aarch64": [
        *(221, 281, 117, 198, 203, 200, 269, 40, 39, 97, 268, 51),
        *(280, 219, 217, 270, 271, 279, 265, 105),
        *(104, 241, 282, 164, 53, 54, 5, 88, 45),
        *(138, 130, 122, 146, 194, 180, 92, 142),
        *(208, 211, 212, 107, 140, 186, 190, 26, 157, 154, 75),
    ],
}
# io_uring_setup pidfd_send_signal pidfd_open clone3 openat2 pidfd_getfd process_madvise
# mount_setattr landlock_restrict_self memfd_secret, and what is to come
UNKNOWN = [425, 424, 434, 435, 437, 438, 440, 442, 446, 447, 10_000, 2**30 - 1]
BY_ARGUMENT = {  # clone socketpair kill tgkill prctl prlimit64 ioctl fcntl openat mmap open
    "x86_64": (56, 53, 62, 234, 157, 302, 16, 72, 257, 9, 2),
    "aarch64": (220, 199, 129, 131, 167, 261, 29, 25, 56, 222),
}
READ, WRITE, BOTH, NEITHER, CREATE, EMPTY, CLOEXEC = 0, 1, 2, 3, 0o100, 0o1000, 0o2000000
OPENED = [
    (READ, True),
    (READ | CLOEXEC, True),
    (WRITE, True),
    (BOTH, True),
    (NEITHER, True),
    (WRITE | CREATE | EMPTY, True),  # Landlock knows which files may be written
    (BOTH | EMPTY, True),
    (READ | EMPTY, False),
    (READ | EMPTY | CLOEXEC, False),
    (NEITHER | EMPTY, False),
]


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_listed_passes_and_nothing_else(machine: str) -> None:
    column = MACHINES.index(machine)
    allowed = {numbers[column] for numbers in ALLOWED.values()} - {None}
    asked = {*allowed, *BY_ARGUMENT[machine]}
    for number in range(424):
        expected = ALLOW if number in allowed else EPERM
        if number not in BY_ARGUMENT[machine]:
            assert verdict(machine, number) == expected, number
    assert not asked & set(REFUSED[machine])
    assert {verdict(machine, number) for number in REFUSED[machine]} == {EPERM}
    assert {verdict(machine, number) for number in UNKNOWN} == {ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_architecture_end_the_process(machine: str) -> None:
    read = ALLOWED["read"][MACHINES.index(machine)]
    assert read is not None
    assert verdict(machine, read) == ALLOW
    assert verdict(machine, read, architecture=0x40000003) == KILL  # i386
    other = AUDIT_ARCH[MACHINES[1 - MACHINES.index(machine)]]
    assert verdict(machine, read, architecture=other) == KILL
    assert verdict(machine, 0x40000000 | read) == KILL  # x32


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("call", "arguments", "passes"),
    [
        (0, (CLONE_THREAD_FLAGS,), True),
        (0, (0x01200011,), False),  # fork, as glibc clones
        (0, (0x4111,), False),  # vfork
        *((0, (CLONE_THREAD_FLAGS | flag,), False) for flag in NAMESPACES),
        (0, (CLONE_THREAD_FLAGS | 0x2000,), False),  # CLONE_PTRACE
        (1, (socket.AF_UNIX, socket.SOCK_STREAM), True),
        (1, (socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC), True),
        (1, (socket.AF_UNIX, socket.SOCK_DGRAM), False),
        (1, (socket.AF_UNIX, socket.SOCK_STREAM | 8), False),
        (1, (socket.AF_INET, socket.SOCK_STREAM), False),
        (2, (PID, signal.SIGTERM), True),
        (2, (1, signal.SIGTERM), False),
        (2, (0, signal.SIGTERM), False),
        (2, (2**64 - 1, signal.SIGTERM), False),
        (3, (PID, 5000, signal.SIGTERM), True),
        (3, (1, 1, signal.SIGTERM), False),
        (4, (15,), True),
        (4, (16,), True),
        (4, (23,), True),
        (4, (39,), True),
        (4, (0x53564D41,), True),
        (4, (38,), False),  # PR_SET_NO_NEW_PRIVS
        (4, (4,), False),  # PR_SET_DUMPABLE
        (4, (1,), False),  # PR_SET_PDEATHSIG
        (4, (22,), False),  # PR_SET_SECCOMP
        (5, (0, 7, 0, 1), True),
        (5, (PID, 7, 0, 1), True),
        (5, (1, 7, 0, 1), False),
        (5, (0, 7, 1, 0), False),
        (5, (0, 7, 1 << 32, 0), False),
        *((6, (3, request), True) for request in (0x5401, 0x5413, 0x541B, 0x5421)),
        *((6, (3, request), True) for request in (0x5450, 0x5451)),
        (6, (3, 0x5412), False),  # TIOCSTI
        (6, (3, 0x8901), False),  # FIOSETOWN
        *((7, (3, command), True) for command in (0, 1, 2, 3, 4, 1030, 1032)),
        (7, (3, 5), False),  # F_GETLK
        (7, (3, 1031), False),  # F_SETPIPE_SZ
        (7, (3, 8), False),  # F_SETOWN
        (7, (3, 10), False),  # F_SETSIG
        (7, (3, 15), False),  # F_SETOWN_EX
        *((8, (-100, 0x1000, flags), passes) for flags, passes in OPENED),
        (8, (EMPTY, EMPTY, READ), True),
        (9, (0, 4096, 3, 0x22), True),  # MAP_PRIVATE | MAP_ANONYMOUS
        (9, (0, 4096, 5, 0x812), True),  # a library: MAP_PRIVATE | MAP_FIXED | MAP_DENYWRITE
        (9, (0, 4096, 1, 0x01), True),  # a file that is shared
        (9, (0, 4096, 3, 0x21), False),  # MAP_SHARED | MAP_ANONYMOUS
        (9, (0, 4096, 3, 0x23), False),  # MAP_SHARED_VALIDATE | MAP_ANONYMOUS
        (9, (0, 4096, 3, 0x122), False),  # MAP_GROWSDOWN
        (9, (0, 4096, 3, 0x40022), False),  # MAP_HUGETLB
    ],
)
def test_arguments_decide(
    machine: str, call: int, arguments: tuple[int, ...], passes: bool
) -> None:
    number = BY_ARGUMENT[machine][call]
    assert verdict(machine, number, *arguments) == (ALLOW if passes else EPERM)


@pytest.mark.parametrize(("flags", "passes"), OPENED)
def test_open_asks_the_same(flags: int, passes: bool) -> None:
    number = BY_ARGUMENT["x86_64"][10]
    assert verdict("x86_64", number, 0x1000, flags) == (ALLOW if passes else EPERM)


def test_a_machine_without_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not available()


def test_a_kernel_that_filters_no_calls_is_refused() -> None:
    assert not without(("prctl",), available)
