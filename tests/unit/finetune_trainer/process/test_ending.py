"""Any exception becomes a reason, without quoting what it holds."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
import torch.distributed as dist

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.result import MAX_BYTES, Outcome, Result
from finetune_trainer.data.lines import parse_line
from finetune_trainer.process.ending import ResultFile, explain, failed, own_frames
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.machine import cpu_count, out_of_memory_kills
from finetune_trainer.process.verdict import RankEnd, pod_result

CANARY = "canary-31"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Failure(Reason.DATA_INVALID, "row 3"), Reason.DATA_INVALID),
        (MemoryError(CANARY), Reason.OUT_OF_MEMORY),
        (torch.OutOfMemoryError(CANARY), Reason.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Reason.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Reason.OUT_OF_MEMORY),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"), Reason.OUT_OF_MEMORY),
        (RuntimeError("miopenStatusAllocFailed"), Reason.OUT_OF_MEMORY),
        (RuntimeError("std::bad_alloc"), Reason.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, CANARY), Reason.DISK_FULL),
        (OSError(errno.EDQUOT, CANARY), Reason.DISK_FULL),
        (RuntimeError("I/O error: Disk quota exceeded (os error 122)"), Reason.DISK_FULL),
        (RuntimeError("I/O error: No space left on device"), Reason.DISK_FULL),
        (RuntimeError("Generic LocalFileSystem error (os error 28)"), Reason.DISK_FULL),
        (RuntimeError("CUDA error: uncorrectable ECC error"), Reason.DEVICE_FAILED),
        (dist.DistBackendError("NCCL: unspecified launch failure"), Reason.DEVICE_FAILED),
        (RuntimeError("GPU 3 has fallen off the bus"), Reason.DEVICE_FAILED),
        (RuntimeError("CUDA error: uncorrectable NVLink error"), Reason.DEVICE_FAILED),
        (RuntimeError("Unable to determine the device handle: GPU is lost"), Reason.DEVICE_FAILED),
        (RuntimeError("CUDA error: hardware stack error"), Reason.DEVICE_FAILED),
        (ValueError("uncorrectable ECC"), Reason.TRAINER_ERROR),
        (dist.DistBackendError(CANARY), Reason.DISTRIBUTED_FAILURE),
        (dist.DistNetworkError(CANARY), Reason.DISTRIBUTED_FAILURE),
        (dist.DistStoreError(CANARY), Reason.DISTRIBUTED_FAILURE),
        (RuntimeError("[gloo/transport/tcp/pair.cc:537] reset"), Reason.DISTRIBUTED_FAILURE),
        (RuntimeError("Connection closed by peer [127.0.0.1]"), Reason.DISTRIBUTED_FAILURE),
        (RuntimeError(CANARY), Reason.TRAINER_ERROR),
        (ValueError(f"gloo {CANARY}"), Reason.TRAINER_ERROR),
    ],
)
def test_exceptions_have_reasons(error: Exception, reason: Reason) -> None:
    failure = explain(error)
    assert failure.reason is reason
    assert failure.message
    assert CANARY not in failure.message


NO_SPACE = os.strerror(errno.ENOSPC)
SHM = "/dev/shm/nccl-WU88OE"


def nccl(last: str) -> dist.DistBackendError:
    """Return what torch makes of NCCL's last warning."""
    return dist.DistBackendError(f"NCCL error in: NCCLUtils.cpp:94\nncclSystemError\n{last}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (nccl("Call to ibv_reg_mr failed with error Cannot allocate memory"), "MEMLOCK"),
        (nccl("Call to ibv_reg_mr_iova2 failed with error Cannot allocate memory"), "MEMLOCK"),
        (nccl("Call to ibv_create_cq failed with error Cannot allocate memory"), "MEMLOCK"),
        (
            nccl("NET/OFI Unable to register memory. RC: 12, Error: Cannot allocate memory"),
            "MEMLOCK",
        ),
        (nccl(f"Error while creating shared memory segment {SHM} (size 963788)"), "/dev/shm"),
        (nccl(f"Error: failed to extend {SHM} to 9637892 bytes"), "/dev/shm"),
        (nccl(f"Error with {SHM}, error: {NO_SPACE} (28)"), "/dev/shm"),
        (nccl(f"Call to posix_fallocate failed : {NO_SPACE}"), "/dev/shm"),
        (OSError(errno.ENOSPC, NO_SPACE, "/dev/shm/psm_1"), "/dev/shm"),
        (RuntimeError(f"unable to write to file </torch_12_3>: {NO_SPACE}"), "/dev/shm"),
        (RuntimeError("unable to resize file </torch_12_3> to the right size"), "/dev/shm"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), CANARY), "NOFILE"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "NOFILE"),
        (RuntimeError("tcp connect error (os error 24)"), "NOFILE"),
        (RuntimeError("received 0 items of ancdata"), "NOFILE"),
        (RuntimeError("can't start new thread"), "podPidsLimit"),
        (RuntimeError("pthread_create: Resource temporarily unavailable"), "podPidsLimit"),
        (RuntimeError("Resource temporarily unavailable"), "podPidsLimit"),  # of std::thread
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "podPidsLimit"),  # of a fork
    ],
)
def test_a_limit_of_the_node_is_neither_memory_nor_disk(error: Exception, words: str) -> None:
    failure = explain(error)
    assert failure.reason is Reason.NODE_LIMIT
    assert words in failure.message
    assert CANARY not in failure.message


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError) as caught:
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    finally:
        torch.use_deterministic_algorithms(before)
    failure = explain(caught.value)
    assert failure.reason is Reason.DEVICE_UNSUPPORTED
    assert failure.message == (
        "spec.training.deterministic: put_ has no deterministic kernel on this device; set it to "
        "false"
    )


def test_an_unknown_error_is_named_by_its_kind_and_our_frames() -> None:
    with pytest.raises(TypeError) as caught:
        parse_line(None)  # type: ignore[arg-type]
    assert explain(caught.value).message.startswith("builtins.TypeError")
    [frame] = own_frames(caught.value)
    assert frame.startswith("data/lines.py:")
    assert frame.endswith(" parse_line")


def test_a_failure_travels_whole() -> None:
    failure = Failure(Reason.DATA_INVALID, "row 3", step=4, rank=2)
    copy = pickle.loads(pickle.dumps(failure))
    assert (copy.reason, copy.message, copy.step, copy.rank) == (Reason.DATA_INVALID, "row 3", 4, 2)
    result = failed(copy, attempt=5, rank=0, frames=("a",))
    assert (result.attempt, result.rank, result.step, result.frames) == (5, 2, 4, ("a",))
    assert failed(Failure(Reason.DISK_FULL, ""), attempt=1, rank=3).rank == 3


def ended(reason: Reason, rank: int, at: int = 0) -> RankEnd:
    outcome = Outcome.SUCCEEDED if reason is Reason.SUCCEEDED else Outcome.FAILED
    return RankEnd(rank, Result(attempt=1, outcome=outcome, reason=reason, rank=rank), at)


def silent(rank: int, crash: str | None = "") -> RankEnd:
    return RankEnd(rank, None, crash=crash)


OK, LOST, STOP = Reason.SUCCEEDED, Reason.DISTRIBUTED_FAILURE, Reason.INTERRUPTED
NAN, DISK = Reason.NON_FINITE_LOSS, Reason.DISK_FULL


@pytest.mark.parametrize(
    ("ends", "stopped", "killed", "reason", "rank"),
    [
        ([ended(OK, 0), ended(OK, 1)], False, False, OK, 0),
        ([ended(OK, 0), ended(OK, 1)], True, False, OK, 0),
        ([ended(LOST, 0, 1), ended(NAN, 1, 2)], False, False, NAN, 1),
        ([ended(NAN, 0, 2), ended(DISK, 1, 1)], False, False, DISK, 1),
        ([ended(STOP, 0, 1), ended(NAN, 1, 2)], True, False, NAN, 1),
        ([ended(LOST, 0), silent(1)], False, False, Reason.TRAINER_ERROR, 1),
        ([ended(LOST, 0), silent(1)], False, True, Reason.OUT_OF_MEMORY, 1),
        ([ended(LOST, 0), silent(1)], True, False, STOP, 0),
        ([ended(STOP, 0), ended(LOST, 1)], True, False, STOP, 0),
        ([ended(STOP, 0, 1), ended(LOST, 1, 2)], False, False, LOST, 1),
        ([ended(LOST, 2, 2), ended(LOST, 3, 1)], False, False, LOST, 3),
        ([ended(STOP, 0), ended(OK, 1)], False, False, STOP, 0),
    ],
)
def test_the_first_cause_is_the_pods_result(
    ends: list[RankEnd], stopped: bool, killed: bool, reason: Reason, rank: int
) -> None:
    result = pod_result(ends, attempt=1, world=4, stopped=stopped, memory_killed=killed)
    assert (result.reason, result.rank) == (reason, rank)


ABORT = "Fatal Python error: Aborted\n\nThread 0x1"
BUS_ERROR = "Fatal Python error: Bus error\n\nThread 0x1"
SEGFAULT = "Fatal Python error: Segmentation fault\n\nThread 0x1"


@pytest.mark.parametrize(
    ("ends", "world", "killed", "reason", "rank", "words"),
    [
        ([ended(LOST, 0), silent(1, ABORT)], 2, False, LOST, 1, "aborted, as NCCL does"),
        ([silent(0, ABORT), silent(1)], 2, False, Reason.TRAINER_ERROR, 1, "often for memory"),
        ([silent(0, ABORT), silent(1)], 2, True, Reason.OUT_OF_MEMORY, 1, "for memory"),
        ([silent(0, ABORT)], 1, False, Reason.TRAINER_ERROR, 0, "crashed in native code"),
        ([silent(0, ABORT), silent(1, SEGFAULT)], 2, False, Reason.TRAINER_ERROR, 1, "crashed in"),
        ([silent(2, None), silent(3, None)], 4, False, LOST, 2, "did not find each other"),
        ([silent(0, None)], 1, False, Reason.TRAINER_ERROR, 0, "often for memory"),
        ([silent(0, BUS_ERROR)], 1, False, Reason.NODE_LIMIT, 0, "where /dev/shm is full"),
        ([ended(LOST, 0), silent(1, None)], 2, False, Reason.TRAINER_ERROR, 1, "often for memory"),
    ],
)
def test_a_rank_without_a_result_is_judged_by_its_crash(
    ends: list[RankEnd], world: int, killed: bool, reason: Reason, rank: int, words: str
) -> None:
    result = pod_result(ends, attempt=1, world=world, stopped=False, memory_killed=killed)
    assert (result.reason, result.rank) == (reason, rank)
    assert words in result.message


def test_a_crash_in_native_code_is_read_back(tmp_path: Path) -> None:
    file = ResultFile(tmp_path, 0)
    assert RankEnd.read(file, 0).crash is None
    program = (
        "import ctypes, faulthandler, sys; faulthandler.enable(open(sys.argv[1], 'w')); "
        "ctypes.CDLL(None).abort()"
    )
    subprocess.run([sys.executable, "-c", program, str(file.crash)])
    end = RankEnd.read(file, 0)
    result = pod_result([end], attempt=1, world=2, stopped=False, memory_killed=False)
    assert result.reason is Reason.DISTRIBUTED_FAILURE


def test_of_several_stops_the_one_that_knows_the_checkpoint_is_told() -> None:
    checkpoint = CheckpointRef(attempt=1, step=5, uri="file:///c")
    ends = []
    for rank, update in enumerate(({}, {"step": 5}, {"step": 5, "checkpoint": checkpoint})):
        end = ended(STOP, rank)
        assert end.result is not None
        ends.append(RankEnd(rank, end.result.model_copy(update=update), at=rank))
    result = pod_result([*ends, silent(3)], attempt=1, world=4, stopped=True, memory_killed=False)
    assert (result.reason, result.checkpoint) == (STOP, checkpoint)
    ends = [*ends[:2], ended(LOST, 3)]
    result = pod_result(ends, attempt=1, world=4, stopped=True, memory_killed=False)
    assert (result.reason, result.step) == (STOP, 5)


def test_the_first_writer_of_a_result_has_the_last_word(tmp_path: Path) -> None:
    file = ResultFile(tmp_path, 3)
    assert file.read() is None
    first = failed(Failure(Reason.INTERRUPTED, "stop"), attempt=1, rank=3)
    second = failed(Failure(Reason.DISK_FULL, "full"), attempt=1, rank=3)
    assert file.write(first) == exit_code(Reason.INTERRUPTED)
    assert file.write(second) == exit_code(Reason.INTERRUPTED)
    assert file.read() == first
    assert [f.name for f in tmp_path.iterdir()] == ["rank-3.json"]
    assert RankEnd.read(file, 3).at > 0


def test_a_second_thread_waits_and_finds_the_first_ones_result(tmp_path: Path) -> None:
    file = ResultFile(tmp_path, 0)
    begun, go_on = Event(), Event()
    first = failed(Failure(Reason.INTERRUPTED, "stop"), attempt=1, rank=0)

    class Slow(Result):
        def encode(self) -> str:
            begun.set()
            go_on.wait()
            return super().encode()

    second = failed(Failure(Reason.DISK_FULL, "full"), attempt=1, rank=0)
    codes: list[int] = []
    slow = Thread(target=lambda: file.write(Slow(**dict(first))))
    late = Thread(target=lambda: codes.append(file.write(second)))
    slow.start()
    begun.wait()
    late.start()
    late.join(0.1)
    go_on.set()
    slow.join()
    late.join()
    assert file.read() == first
    assert codes == [exit_code(Reason.INTERRUPTED)]


def test_a_reserved_result_is_written_in_its_place(tmp_path: Path) -> None:
    file = ResultFile(tmp_path, 3)
    file.reserve()
    [reserved] = tmp_path.iterdir()
    before = reserved.stat()
    assert before.st_blocks * 512 >= MAX_BYTES
    result = failed(Failure(Reason.DISK_FULL, "full"), attempt=1, rank=3)
    file.write(result)
    [written] = tmp_path.iterdir()
    assert written.stat().st_ino == before.st_ino
    assert written.read_text() == result.encode()


def test_the_container_is_read_from_its_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert cpu_count(tmp_path) == 8
    assert out_of_memory_kills(tmp_path) == 0
    for text, count in (("max 100000", 8), ("350000 100000", 3), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(text)
        assert cpu_count(tmp_path) == count
    (tmp_path / "memory.events").write_text("oom 3\noom_kill 2\n")
    assert out_of_memory_kills(tmp_path) == 2
