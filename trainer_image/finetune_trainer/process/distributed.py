"""The group of training processes: who they are, what they agree on, who failed first.

Agreement runs over a gloo group of its own, so that it never depends on the accelerator and may
wait as long as a download takes; a process that dies closes its connections, which ends the wait.
Not every wait ends that way (forming a group waits in the store, NCCL waits for its time-out), so
each rank also watches whether another has told that it failed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import Any, Generic, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from finetune_contract.reasons import Reason
from finetune_contract.result import Result
from finetune_trainer.process.errors import Failure

T = TypeVar("T")
Held = TypeVar("Held")

log = logging.getLogger(__name__)

AGREEMENT_TIMEOUT = timedelta(hours=12)
RENDEZVOUS_TIMEOUT = timedelta(hours=1)  # the nodes' pods may start that far apart
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # of the device's group: loading may differ that much
FIRST_FAILURE = "finetune/first-failure"
MOVES, PATIENCE = "finetune/moves", "finetune/patience"
WATCH_SECONDS = 2.0
GRACE_SECONDS = 10.0  # in which a rank ends by itself, if it can


class Ranks:
    """This process among the others. Made once per process, by `join`, which settles the device."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.rank = rank
        self.world = world
        self.device = torch.device("cpu")
        self._store = store
        self._news = store.clone()  # a connection of its own: the other may be held by a wait
        self._agreement: Any = None
        self._told: str | None = None

    @classmethod
    def meet(cls) -> Ranks:
        """Connect to the other ranks' store, as torchrun's environment describes it."""
        store, rank, world = next(rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
        return cls(store, rank, world)

    @property
    def is_lead(self) -> bool:
        """Tell whether this is rank 0."""
        return self.rank == 0

    def join(self, *, gpus: bool = False) -> None:
        """Form the process group; all ranks must call it.

        Raises Failure(DeviceUnsupported) where a GPU is asked for and there is none, or too few.
        """
        self.device = choose_device(gpus=gpus, local_rank=int(os.environ["LOCAL_RANK"]))
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self.device)
        log.info("trains on %s", torch.cuda.get_device_name() if on_gpu else "the CPU")
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=PrefixStore("finetune", self._store),
            rank=self.rank,
            world_size=self.world,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=self.device if on_gpu else None,
        )
        self._agreement = dist.new_group(backend="gloo", timeout=AGREEMENT_TIMEOUT)

    def lead(self, work: Callable[[], T]) -> T:
        """Do `work` on rank 0 and return its result on all; all raise what it failed with."""
        outcome: list[Any] = [None, None]
        if self.is_lead:
            try:
                outcome[0] = work()
            except Failure as failure:
                failure.rank = 0
                outcome[1] = failure
        dist.broadcast_object_list(outcome, src=0, group=self._agreement)
        if outcome[1] is not None:
            raise outcome[1]
        return cast(T, outcome[0])

    def hold(self, make: Callable[[], Held]) -> Led[Held]:
        """Return what `make` makes on rank 0, to be kept there; all raise what it failed with."""
        made: list[Held] = []
        self.lead(lambda: made.append(make()))
        return Led(self, made[0] if made else None)

    @property
    def is_local_lead(self) -> bool:
        """Tell whether this is the first rank of its node; a process alone is."""
        return os.environ.get("LOCAL_RANK", "0") == "0"

    def everywhere(self, work: Callable[[], T]) -> list[T]:
        """Do `work` on every rank and return what each made, by rank.

        All ranks must call it, and all raise the lowest failing rank's failure.
        """
        outcome: tuple[T | None, Failure | None]
        try:
            outcome = (work(), None)
        except Failure as failure:
            if failure.rank is None:  # else all ranks raise what one of them failed with
                failure.rank = self.rank
            outcome = (None, failure)
        outcomes: list[Any] = [None] * self.world
        dist.all_gather_object(outcomes, outcome, group=self._agreement)
        for _, found in outcomes:
            if found is not None:
                raise found
        return [made for made, _ in outcomes]

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` on every rank and return what this one made, once all have done it.

        All ranks must call it, and all raise the lowest failing rank's failure.
        """
        made: list[T] = []
        self.everywhere(lambda: made.append(work()))
        return made[0]

    def wait(self) -> None:
        """Return once every rank has come here."""
        dist.barrier(group=self._agreement)

    def sum(self, value: float) -> float:
        """Return the sum of a number over all ranks, in double precision."""
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self._agreement)
        return total.item()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all ranks, alike in shape, in double precision on the host."""
        mine = tensor.detach().to("cpu", torch.float64)
        theirs = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(theirs, mine, group=self._agreement)
        return torch.stack(theirs)

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Return of each flag whether it is set on any rank."""
        if self.world == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._agreement)
        return tuple(bool(flag) for flag in found)

    def share(self, tensor: Tensor) -> Tensor:
        """Return rank 0's tensor on every rank; shape and type must be the same, on the host."""
        dist.broadcast(tensor, src=0, group=self._agreement)
        return tensor

    def collect(self, value: T, tensor: Tensor, take: Callable[[T, Tensor], None]) -> None:
        """Hand every rank's value and host tensor, 1-D fp32 of any length, to `take` on rank 0."""
        told: list[Any] = [None] * self.world
        mine = (value, tensor.numel())
        dist.gather_object(mine, told if self.is_lead else None, dst=0, group=self._agreement)
        if not self.is_lead:
            if tensor.numel():
                dist.send(tensor, dst=0, group=self._agreement)
            return
        take(value, tensor)
        for rank, (theirs, numel) in enumerate(told[1:], start=1):
            received = torch.empty(numel)
            if numel:
                dist.recv(received, src=rank, group=self._agreement)
            take(theirs, received)

    def tell_failure(self, result: Result) -> None:
        """Tell the other ranks why this one ends, if none has told before, and let them hear it.

        The store may live in this node's torchrun, which ends with the rank.
        """
        if self.world > 1:
            self._news.compare_set(FIRST_FAILURE, "", result.encode())
            time.sleep(2 * WATCH_SECONDS)

    def told_failure(self) -> str | None:
        """Return the Result that the first failing rank told; None if none did."""
        try:
            if self._told is None and self._news.check([FIRST_FAILURE]):
                self._told = cast(bytes, self._news.get(FIRST_FAILURE)).decode()
        except RuntimeError:
            log.debug("the store is gone, and what it knew")
        return self._told

    def watch_failures(self, end: Callable[[str], None]) -> None:
        """Call `end` with the Result another rank told, if this one has not ended soon after."""

        def watch() -> None:
            while (told := self.told_failure()) is None:
                time.sleep(WATCH_SECONDS)
            time.sleep(GRACE_SECONDS)
            end(told)

        Thread(target=watch, name="peers", daemon=True).start()

    def pulse(self) -> Callable[[bool, float], tuple[int, float]]:
        """Return what tells the others whether this rank got on, and how long it may not; it
        returns a count that is another whenever any did, and how long all may not.

        What the lead is at decides that: the others wait for it.
        """
        store = self._store.clone()
        told: float | None = None

        def exchange(moved: bool, seconds: float) -> tuple[int, float]:
            nonlocal told
            if self.is_lead and seconds != told:
                store.set(PATIENCE, str(seconds))
                told = seconds
            count = int(store.add(MOVES, int(moved)))
            leads = float(store.get(PATIENCE)) if store.check([PATIENCE]) else 0.0
            return count, max(seconds, leads)

        return exchange


@dataclass(frozen=True)
class Led(Generic[Held]):
    """What rank 0 alone holds: `mine` is None on the others."""

    ranks: Ranks
    mine: Held | None

    def ask(self, work: Callable[[Held], T]) -> T:
        """Do `work` with it on rank 0 and return its result on all; all raise what it failed with.

        All ranks must call it.
        """
        return self.ranks.lead(lambda: work(cast(Held, self.mine)))


def choose_device(*, gpus: bool, local_rank: int) -> torch.device:
    """Return the rank's GPU, or the CPU where there is none and none was asked for.

    Raises Failure(DeviceUnsupported): a pod that asked for GPUs must not train on its CPU unheard.
    """
    if not torch.cuda.is_available():
        if gpus:
            raise Failure(Reason.DEVICE_UNSUPPORTED, _no_gpu())
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise Failure(
            Reason.DEVICE_UNSUPPORTED,
            f"there is no GPU for process {local_rank} of this node, which has "
            f"{torch.cuda.device_count()}; every process needs one of its own",
        )
    return torch.device("cuda", local_rank)


def _no_gpu() -> str:
    asked = "the pods ask for GPUs (spec.workers.resources), but"
    if torch.version.cuda is None:
        return f"{asked} the image's torch is for CPUs; set spec.workers.image to one with CUDA"
    return (
        f"{asked} torch finds none that works with CUDA {torch.version.cuda}; bring the node's "
        "NVIDIA driver up to date, or use a spec.workers.image built for an older CUDA"
    )
