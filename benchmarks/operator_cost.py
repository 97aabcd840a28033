"""What FineTuneJobs cost the operator: a job until its PyTorchJob stands, thousands that run.

    python benchmarks/operator_cost.py [--rounds 3] [--jobs 100] [--rate 20] [--running 10000]
                                       [--json FILE]

`submitted`: jobs are created at a rate. Per job the requests (but for lists and watches), CPU time,
and milliseconds from the job to its PyTorchJob. `running`: the operator starts on a cluster with so
many running jobs, each with seven children and two pods. CPU time until it has looked at all of
them, the most memory it held, and what it wrote, also after 1,000 of the jobs were touched.

Beside it stands a naive operator: Kopf's `on.create`, which makes the same children one after the
other, and watches jobs alone. Operators and the API server are processes of their own; every write
waits for a round trip of 20 ms. Rounds of the two alternate; medians of the rounds count. The exit
code is 1 if a bar is missed. CPU time suffers least from a busy machine; p99 is for a quiet one.
`--running 0` leaves out what takes minutes.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from finetune_api.job import KIND
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from harness.command_line import command_line, save
from harness.operator_process import CONTENDERS, Bench, started
from harness.population import NAMESPACE, job

JOBS = resources(BACKEND.kinds)[KIND].path(NAMESPACE)
TOUCHED = 1000
BARS = {
    "requests": 10,
    "cpu_ms": 15,
    "p99_ms": 150,
    "start_cpu_s": 30,
    "peak_mib": 256,
    "writes": 0,
}


@dataclass(frozen=True)
class Submitted:
    """Per job requests and CPU milliseconds; milliseconds to a PyTorchJob."""

    requests: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Running:
    """CPU seconds until all jobs were looked at, MiB; CPU milliseconds a touched job; writes."""

    start_cpu_s: float
    peak_mib: float
    touched_cpu_ms: float
    writes: float


async def submit(contender: str, jobs: int, rate: float) -> Submitted:
    """Create the jobs at their rate."""
    async with started(contender) as bench:
        await asyncio.sleep(2)
        before, names = bench.cpu(), [f"job-{i}" for i in range(jobs)]
        for name in names:
            async with bench.session.post(JOBS, json=job(name)) as answer:
                assert answer.status == 201
            await asyncio.sleep(1 / rate)
        wanted = {f"pytorchjobs/{name}-a1" for name in names}
        await bench.until(lambda state: wanted <= state["times"].keys())
        await asyncio.sleep(3)  # what follows the submission belongs to its cost
        cpu, state = bench.cpu() - before, await bench.state()
    times = state["times"]
    delays = sorted(times[f"pytorchjobs/{n}-a1"] - times[f"finetunejobs/{n}"] for n in names)
    return Submitted(
        requests=sum(state["counts"].values()) / jobs,
        cpu_ms=1e3 * cpu / jobs,
        p50_ms=1e3 * statistics.median(delays),
        p99_ms=1e3 * delays[int(0.99 * (jobs - 1))],
    )


async def start(contender: str, jobs: int) -> Running:
    """Start on running jobs, then touch some."""
    async with started(contender, jobs) as bench:
        await bench.rest()
        cpu, touched = bench.cpu(), min(jobs, TOUCHED)
        await _touch(bench, touched)
        await bench.rest()
        counts = (await bench.state())["counts"]
        return Running(
            start_cpu_s=cpu,
            peak_mib=bench.peak(),
            touched_cpu_ms=1e3 * (bench.cpu() - cpu) / touched,
            writes=sum(n for request, n in counts.items() if not request.startswith("GET")),
        )


async def _touch(bench: Bench, jobs: int) -> None:
    patch = {"metadata": {"labels": {"touched": "true"}}}
    for number in range(jobs):
        async with bench.session.patch(f"{JOBS}/job-{number:05}", json=patch) as answer:
            assert answer.status == 200


def main() -> int:
    parser = command_line(__doc__, rounds=3)
    parser.add_argument("--jobs", type=int, default=100, help="jobs that are created")
    parser.add_argument("--rate", type=float, default=20, help="of them a second")
    parser.add_argument("--running", type=int, default=10_000, help="jobs that run already")
    arguments = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.rounds):
        for name in CONTENDERS:
            rounds[name].append(asdict(asyncio.run(submit(name, arguments.jobs, arguments.rate))))
    measured = {name: medians(rows) for name, rows in rounds.items()}
    if arguments.running:
        for name in CONTENDERS:  # once: it takes minutes, and differs little
            measured[name] |= asdict(asyncio.run(start(name, arguments.running)))
    save(measured, arguments.json)
    return report(measured)


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each number."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def report(measured: dict[str, dict[str, float]]) -> int:
    """Print what was measured beside its bar; return 1 if one is missed."""
    own, naive = measured.values()
    missed = [name for name, bar in BARS.items() if own.get(name, 0) > bar]
    print(f"{'':16}" + "".join(f"{name:>20}" for name in (*measured, "at most")))
    for name, value in own.items():
        bar = BARS.get(name)
        verdict = "" if bar is None else f"{bar:>14} {'MISS' if name in missed else 'pass'}"
        print(f"{name:16}{value:20.1f}{naive[name]:20.1f} {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # the processes are ended by then
        sys.exit(130)
