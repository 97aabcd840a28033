"""What a schedule names: moves of users, strangers, machines, trainers and operators."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from finetune_api.job import KIND
from support.operator.backends import ONE_OBJECT, Played
from support.operator.model import strangers
from support.operator.model.api_server import Fault
from support.operator.model.invariants import check_the_end
from support.operator.model.schedules import TURN, Schedule, Simulation

Json = Any


def take(simulation: Simulation, name: str, argument: Any) -> None:
    """Take one move."""
    if name == "turn":
        for part in argument:
            take(simulation, part, None)
        return
    for takes in (_operators, _machines, _users, _strangers):
        if takes(simulation, name, argument):
            return
    raise AssertionError(f"there is no move {name}")


def _all(simulation: Simulation, *moves: str | tuple[str, Any]) -> None:
    for move in moves:
        take(simulation, *((move, None) if isinstance(move, str) else move))


def _operators(simulation: Simulation, name: str, argument: Any) -> bool:
    operator = simulation.operator
    match name:
        case "pass":
            simulation.do_pass()
        case "passes":
            for _ in range(argument):
                take(simulation, "wait", 7)
                take(simulation, "turn", ["elect", "deliver all", "pass"])
        case "elect":
            operator.elect()
        case "swap":
            simulation.swap()
        case "fail over":
            _all(simulation, "swap", "elect", ("wait", 13), "elect", "swap", "pass", "swap")
        case "rival":
            _all(simulation, "swap", ("restart", argument), "elect", "swap", "pass")
        case "restart":
            simulation.restart(timedelta(seconds=argument))
        case "late":
            operator.api.late = argument
        case "arrive":
            simulation.arrive()
        case "deliver":
            kind, count = argument
            operator.deliver(simulation.kind(kind), count)
        case "deliver all":
            operator.deliver_all()
        case "repeat":
            kind, index = argument
            operator.repeat(simulation.kind(kind), index)
        case "gap":
            operator.watch.pending[simulation.kind(argument)].clear()
        case "relist":
            operator.relist()
        case "fault":
            operator.api.fault = Fault(argument.write, argument.after, argument.crash)
        case "crash once the workload is made":
            # The first attempt's; the status and six objects come before those of the backend.
            writes = 7 + len(simulation.world.backend.kinds)
            operator.api.fault = Fault(writes - 1, after=True, crash=True)
        case "outage":
            operator.api.outage = argument
        case _:
            return False
    return True


def _machines(simulation: Simulation, name: str, argument: Any) -> bool:
    world = simulation.world
    match name:
        case "training-operator":
            world.train_operator()
        case "start pods":
            simulation.start_pods()
        case "collect":
            world.collect()
        case "end":
            pod, reason = argument
            world.end(simulation.pod(pod), reason)
        case "train":
            pod, steps, save = argument
            world.train(simulation.pod(pod), steps, save)
        case "old report":
            pod, steps = argument
            world.report_again(simulation.pod(pod), steps)
        case "fate":
            simulation.fate = argument
        case "polite":
            world.polite = argument
        case "stubborn":
            world.stubborn = argument
        case "sidecars":
            world.sidecars = argument
        case "unreachable":
            world.unreachable.add(simulation.pod(argument))
        case "taint":
            world.lose_nodes()
        case "remove nodes":
            world.remove_nodes()
        case "nodes are back":
            world.unreachable.clear()
        case "node clocks":
            world.ahead = timedelta(seconds=argument)
        case "room":
            world.room = argument
        case "hold":
            world.hold(argument)
        case "wait":
            world.now += timedelta(seconds=argument)
        case _:
            return False
    return True


def _users(simulation: Simulation, name: str, argument: Any) -> bool:
    world = simulation.world
    match name:
        case "delete pod":
            world.delete_pod(simulation.pod(argument))
        case "evict":
            pod, why = argument
            world.delete_pod(simulation.pod(pod), why)
        case "delete workload":
            kind = world.backend.workload
            if world.find(kind, f"bot-a{argument}"):
                world.drop(kind, f"bot-a{argument}")
        case "orphan":
            world.orphan(f"bot-a{argument}")
        case "delete job":
            world.drop(KIND, "bot")
        case "suspend":
            if not simulation.finished():
                simulation.edit(suspend=argument)
        case "deadline":
            if not simulation.finished():
                simulation.edit(activeDeadlineSeconds=argument)
        case "overrun":
            _all(simulation, ("deadline", argument), ("wait", argument + 61), ("turn", TURN))
        case "retry":
            simulation.retry()
        case "label":
            simulation.touch()
        case _:
            return False
    return True


def _strangers(simulation: Simulation, name: str, argument: Any) -> bool:
    world = simulation.world
    match name:
        case "plant":
            strangers.plant(world, *argument)
        case "plant pod":
            (attempt, rank), well = argument
            strangers.plant_pod(world, simulation.pod((attempt, rank)), attempt, well)
        case "relabel":
            kind, attempt, away = argument
            strangers.relabel(world, simulation.kind(kind), attempt, away)
        case "edit status":
            strangers.edit_status(world, *argument)
        case "refuse":
            kind, why = argument
            world.refused[simulation.kind(kind)] = why
        case _:
            return False
    return True


def play(
    schedule: Schedule, code: bool = False, backend: Played = ONE_OBJECT, two: bool = False
) -> Json:
    """Take every move, make peace, and return the job as it is at the end; None once deleted."""
    simulation = Simulation(code, backend, two)
    try:
        for name, argument in schedule:
            take(simulation, name, argument)
            if not simulation.world.find(KIND, "bot"):
                simulation.check_absence()
                return None
        simulation.make_peace()
        check_the_end(simulation.world)
        simulation.check_silence()
        return simulation.world.job()
    finally:
        simulation.close()
