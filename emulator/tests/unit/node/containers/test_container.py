"""One container's restarts and pauses, with scripted processes instead of real ones."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kube_emulator.client import Object, Resource
from kube_emulator.node.containers.container import ContainerRunner
from kube_emulator.node.containers.environment import PodFacts
from kube_emulator.node.containers.images import Catalogue, Image
from kube_emulator.node.containers.process import StartError
from kube_emulator.node.containers.record import Kind, Running, Terminated, Waiting
from kube_emulator.node.containers.sandbox import Sandbox
from kube_emulator.node.pods.setting import PodSetting
from kube_emulator.timestamps import now


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0)


class Process:
    """A container that ends at once with `code`."""

    main_pid = 1
    running = False

    def __init__(self, code: int, *, oom: bool = False) -> None:
        self.code = code
        self.oom_killed = oom

    async def wait(self) -> int:
        return self.code

    async def wait_exit(self) -> None:
        pass

    async def stop(self, _: float) -> None:
        pass


class Bench:
    """A pod's setting, what its container said, and how long it paused."""

    def __init__(self, home: Path, policy: str) -> None:
        self.codes: list[Process | StartError] = []
        self.pauses: list[float] = []
        self.states: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.started: list[list[str]] = []
        self.images: dict[str, Image] = {}
        self.objects: dict[str, Object] = {}
        meta = {"name": "p", "namespace": "ns", "uid": "u"}
        pod = {"metadata": meta, "spec": {"restartPolicy": policy, "containers": []}}
        no_volumes: Any = type("NoVolumes", (), {"mounts": lambda *_: []})()
        self.setting = PodSetting(
            facts=PodFacts(pod, "n", "127.0.0.1", "127.77.0.1"),
            volumes=no_volumes,
            fetch=self.fetch,
            catalogue=Catalogue(self.images),
            base_environment={"PATH": "/usr/bin:/bin"},
            directory=home,
            logs=home / "logs",
            masked=home,
            back_off_seconds=10.0,
            note=self.note,
            changed=self.changed,
        )
        self.runner: ContainerRunner | None = None

    async def fetch(self, _: Resource, name: str) -> Object | None:
        return self.objects.get(name)

    async def note(self, _: str, reason: str, message: str) -> None:
        self.events.append((reason, message))

    def changed(self) -> None:
        assert self.runner is not None
        state = self.runner.record.state
        self.states.append(state.reason if isinstance(state, Waiting | Terminated) else "Running")

    async def start(
        self, sandbox: Sandbox, arguments: list[str], variables: dict[str, str], *_: object
    ) -> Process:
        self.started.append(arguments)
        self.sandbox = sandbox
        self.variables = variables
        outcome = self.codes.pop(0)
        if isinstance(outcome, StartError):
            raise outcome
        return outcome

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def run(self, kind: Kind = Kind.MAIN, **spec: Any) -> ContainerRunner:
        """Run until the container has ended, or the script is used up."""
        container = {"name": "c", "image": "alpine"} | spec
        start: Any = self.start
        self.runner = ContainerRunner(container, kind, self.setting, start, self.pause)
        try:
            await self.runner.run()
        except IndexError:
            assert not self.codes
        return self.runner


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path, getattr(request, "param", "Never"))


@pytest.mark.parametrize(
    ("bench", "kind", "codes", "runs"),
    [
        ("Never", Kind.MAIN, [1], 1),
        ("Never", Kind.MAIN, [0], 1),
        ("OnFailure", Kind.MAIN, [1, 2, 0], 3),
        ("Always", Kind.MAIN, [0, 1, 0], 3),
        ("Never", Kind.INIT, [1], 1),
        ("OnFailure", Kind.INIT, [1, 0], 2),
        ("Always", Kind.INIT, [1, 0], 2),
        ("Never", Kind.SIDECAR, [1, 0, 1], 3),
    ],
    indirect=["bench"],
)
async def test_which_ends_are_followed_by_a_restart(
    bench: Bench, kind: Kind, codes: list[int], runs: int
) -> None:
    """Scripts that end in a restart are used up: the container would go on for ever."""
    bench.codes = [Process(code) for code in codes]
    runner = await bench.run(kind)
    assert len(bench.started) - (0 if isinstance(runner.record.state, Terminated) else 1) == runs
    assert not bench.codes


@pytest.mark.parametrize("bench", ["OnFailure"], indirect=True)
async def test_pauses_double_up_to_five_minutes(bench: Bench) -> None:
    bench.codes = [Process(1) for _ in range(8)] + [Process(0)]
    runner = await bench.run()
    assert bench.pauses == [10, 20, 40, 80, 160, 300, 300, 300]
    assert runner.record.restarts == 8
    assert runner.record.last is not None
    assert runner.record.last.exit_code == 1
    texts = {message for reason, message in bench.events if reason == "BackOff"}
    assert texts == {"Back-off restarting failed container c in pod p"}


@pytest.mark.parametrize("bench", ["OnFailure"], indirect=True)
async def test_a_long_life_forgets_the_pauses(bench: Bench) -> None:
    class Old(Process):
        async def wait_exit(self) -> None:
            assert bench.runner is not None
            bench.runner.record.state = Running(now() - timedelta(hours=1))

    bench.codes = [Process(1), Process(1), Old(1), Process(0)]
    await bench.run()
    assert bench.pauses == [10, 20, 10]


async def test_a_container_runs_before_it_has_started(bench: Bench) -> None:
    """A startup probe holds back `started` and `ready`, not the state."""
    process = Process(0)
    go, end = asyncio.Event(), asyncio.Event()
    process.wait_exit = end.wait  # type: ignore[method-assign,assignment]

    async def execute(_: list[str]) -> None:
        await go.wait()

    process.execute = execute  # type: ignore[attr-defined]
    bench.codes = [process]
    probe = {"exec": {"command": ["x"]}, "timeoutSeconds": 60}
    running = asyncio.create_task(bench.run(startupProbe=probe, readinessProbe=probe))
    await until(lambda: bench.states == ["Running"])
    assert bench.runner is not None
    record = bench.runner.record
    assert (record.started, record.ready) == (False, False)
    go.set()
    await until(lambda: record.ready)
    assert record.started
    end.set()
    await running
    assert (record.started, record.ready) == (False, False)


async def test_without_probes_a_running_container_is_ready_at_once(bench: Bench) -> None:
    """One write says both."""
    process = Process(0)
    end = asyncio.Event()
    process.wait_exit = end.wait  # type: ignore[method-assign,assignment]
    bench.codes = [process]
    running = asyncio.create_task(bench.run())
    await until(lambda: bench.states == ["Running"])
    assert bench.runner is not None
    assert bench.runner.record.ready
    end.set()
    await running


@pytest.mark.parametrize("bench", ["OnFailure"], indirect=True)
async def test_the_waiting_state_between_runs(bench: Bench) -> None:
    bench.codes = [Process(1), Process(0)]
    await bench.run()
    assert bench.states == ["Running", "Error", "CrashLoopBackOff", "Running", "Completed"]


async def test_an_image_is_asked_for_again_until_it_is_known(bench: Bench) -> None:
    bench.codes = [Process(0)]
    running = asyncio.create_task(bench.run(image="own:1"))
    await until(lambda: len(bench.pauses) >= 4)
    bench.setting.catalogue._images["own"] = Image(("/bin/true",))
    runner = await running
    assert bench.pauses[:4] == [1, 10, 1, 20]
    assert bench.states[:2] == ["ErrImagePull", "ImagePullBackOff"]
    reasons = [reason for reason, _ in bench.events][:3]
    assert reasons == ["Failed", "Failed", "BackOff"]
    assert ("BackOff", 'Back-off pulling image "own:1"') in bench.events
    assert isinstance(runner.record.state, Terminated)


async def test_an_image_says_what_its_pod_does_not(bench: Bench) -> None:
    own = Image(("/bin/true",), user=7, group=8, working_directory="/srv")
    bench.setting.catalogue._images["own"] = own
    bench.codes = [Process(0), Process(0)]
    await bench.run(image="own")
    who = bench.sandbox.privileges
    assert (who.user, who.group, bench.sandbox.working_directory) == (7, 8, "/srv")
    assert bench.variables["HOME"] == "/"
    assert bench.sandbox.masked == bench.setting.masked
    named = [{"name": "HOME", "value": "/own"}]
    await bench.run(image="own", workingDir="/usr", securityContext={"runAsUser": 9}, env=named)
    assert (bench.sandbox.privileges.user, bench.sandbox.working_directory) == (9, "/usr")
    assert bench.variables["HOME"] == "/own"


async def test_missing_configuration_is_asked_for_again(bench: Bench) -> None:
    bench.codes = [Process(0)]
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    env = [{"name": "K", "valueFrom": reference}]
    running = asyncio.create_task(bench.run(env=env, command=["echo", "$(K)"]))
    await until(lambda: "CreateContainerConfigError" in bench.states)
    bench.objects["s"] = {"kind": "Secret", "data": {"k": "dg=="}}
    await running
    assert ("Failed", 'Error: secret "s" not found') in bench.events
    assert bench.started == [["echo", "v"]]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["/bin/sh"]),
        ({"args": ["-c", "true"]}, ["/bin/sh", "-c", "true"]),
        ({"command": ["true"]}, ["true"]),
        ({"command": ["echo"], "args": ["$(A)", "$$(A)"]}, ["echo", "1", "$(A)"]),
    ],
)
async def test_arguments(bench: Bench, spec: Object, expected: list[str]) -> None:
    bench.codes = [Process(0)]
    await bench.run(**spec, env=[{"name": "A", "value": "1"}])
    assert bench.started == [expected]


@pytest.mark.parametrize(
    ("process", "reason"),
    [(Process(0), "Completed"), (Process(2), "Error"), (Process(137, oom=True), "OOMKilled")],
)
async def test_reasons(bench: Bench, process: Process, reason: str) -> None:
    bench.codes = [process]
    state = (await bench.run()).record.state
    assert isinstance(state, Terminated)
    assert (state.reason, state.exit_code) == (reason, process.code)
    assert state.container_id.startswith("emulated://")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("absent", 'exec: "absent": executable file not found in $PATH'),
        ("/absent", 'exec: "/absent": stat /absent: no such file or directory'),
    ],
)
async def test_a_command_that_is_not_there(bench: Bench, command: str, words: str) -> None:
    state = (await bench.run(command=[command])).record.state
    assert isinstance(state, Terminated)
    assert (state.reason, state.exit_code, state.message) == ("StartError", 128, words)
    assert ("Failed", f"Error: {words}") in bench.events


async def test_a_sandbox_that_failed(bench: Bench) -> None:
    bench.codes = [StartError("mount: no")]
    state = (await bench.run()).record.state
    assert isinstance(state, Terminated)
    assert (state.reason, state.message) == ("StartError", "mount: no")


async def test_a_cpu_limit_is_told_and_the_pods_own_word_counts_more(bench: Bench) -> None:
    limits = {"resources": {"limits": {"cpu": "1"}}}
    bench.codes = [Process(0), Process(0)]
    await bench.run(**limits)
    assert bench.variables["OMP_NUM_THREADS"] == "1"
    await bench.run(**limits, env=[{"name": "OMP_NUM_THREADS", "value": "3"}])
    assert bench.variables["OMP_NUM_THREADS"] == "3"
