"""`finetune demo`: the whole system, from nothing to a better model, told step by step."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from finetune_api.status import ArtifactStatus, FineTuneJobStatus, ProgressStatus
from finetune_cli.console import ERR, INTERRUPTED, OUT, print_out, refusal, refusing
from finetune_cli.progress_bar import ProgressBar
from finetune_contract.model import filled
from finetune_contract.progress import Progress
from finetune_contract.resolved import Resolved

if TYPE_CHECKING:
    from finetune_local.accuracy import Accuracy
    from finetune_local.cluster import ClusterInfo
    from finetune_local.demo import Shell

_TRAINING_SECONDS = 900
_BAR_POINTS = 40.0


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the cluster up and print how to look around.")
    ] = False,
) -> None:
    """Show the whole system on this machine, in a few minutes.

    Starts an embedded cluster (an emulation of Kubernetes) with S3, installs the operator with
    Helm, applies examples/quickstart.yaml with kubectl, and measures base model and adapter on
    held-out questions. Ctrl-C and the end clean everything up.
    """
    started = time.monotonic()
    from finetune_local.cluster import ClusterError
    from finetune_local.demo import CommandFailed
    from finetune_local.demo_data import MissingModel

    try:
        with refusing(ClusterError, CommandFailed, MissingModel, TimeoutError, code=1):
            gain = _story(keep)
    except KeyboardInterrupt:
        told = "interrupted; everything that the demo started has been stopped"
        raise refusal(told, INTERRUPTED) from None
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    if gain < _BAR_POINTS:
        told = f"the adapter gained {gain:+.0f} points; {_BAR_POINTS:+.0f} were expected"
        raise refusal(told, 1)
    print_out(f"\nDone in {minutes} min {seconds} s.")


def _story(keep: bool) -> float:
    from finetune_local import demo as actions
    from finetune_local import demo_data
    from finetune_local.cluster import running_cluster

    _step("Start an embedded cluster (an emulation of Kubernetes) and its S3")
    with running_cluster(keep=keep) as cluster:
        shell = actions.Shell(cluster.kubeconfig)

        _step("Put a model and sums to learn from into S3")
        with ERR.status("Converting SmolLM2-135M-Instruct (once) and uploading"):
            demo_data.upload(cluster.s3.store(demo_data.BUCKET))

        _step("Install the operator")
        _show(shell, *actions.install_command(_asset("charts/finetune-operator")))

        _step("Ask for an adapter")
        _show(shell, "kubectl", "apply", "--filename", str(actions.secret_file(cluster)))
        _show(shell, "kubectl", "apply", "-f", str(_asset("examples/quickstart.yaml")))
        artifact = _follow(actions.follow(shell, _TRAINING_SECONDS), shell)

        _step("Load the adapter back from S3 and ask both models 32 new questions")
        with ERR.status("Generating answers"):
            accuracy = actions.held_out_accuracy(cluster, artifact.uri)
        _show_accuracy(accuracy)
        if keep:
            _look_around(cluster)
        return accuracy.gain


def _follow(statuses: Iterator[FineTuneJobStatus], shell: Shell) -> ArtifactStatus:
    """Show the job's progress until it ends; exit with its reason if it failed."""
    last = FineTuneJobStatus()
    with ProgressBar() as bar:
        for last in statuses:
            if last.progress is not None:
                bar.show(_progress(last, last.progress))
    _show(shell, "kubectl", "get", "finetunejob", "--output=wide")
    for entry in last.conditions or []:
        print_out(f"  {entry.type}={entry.status}  {entry.reason}: {entry.message}")
    if last.artifact is None:
        raise typer.Exit(1)
    print_out(f"  adapter {last.artifact.uri}\n  digest  {last.artifact.digest}")
    return last.artifact


def _progress(status: FineTuneJobStatus, told: ProgressStatus) -> Progress:
    attempts, plan = status.attempts or [], status.plan
    return filled(
        Progress,
        told,
        resumed_step=attempts[-1].resumed_step if attempts else None,
        plan=filled(Resolved, plan) if plan and plan.memory else None,
        moves=None,  # of the operator's concern alone
        checkpoint=status.checkpoint,
    )


def _show_accuracy(accuracy: Accuracy) -> None:
    table = Table("model", "exact answers", "accuracy")
    for name, exact in (("base", accuracy.base), ("with the adapter", accuracy.adapter)):
        table.add_row(name, f"{exact} of {accuracy.items}", f"{accuracy.percent(exact):.0f}%")
    OUT.print(table)


def _look_around(cluster: ClusterInfo) -> None:
    from finetune_local.binaries import kubectl

    programs = f"{kubectl().parent}:{Path(sys.argv[0]).absolute().parent}"
    print_out(
        "\nThe cluster is still up. Look around:\n"
        f"  export KUBECONFIG={cluster.kubeconfig} PATH=$PATH:{programs}\n"
        "  kubectl get finetunejobs,pytorchjobs,pods\n"
        "  kubectl describe finetunejob sums\n"
        "  kubectl logs sums-a1-master-0\n"
        "and stop it with:\n"
        "  finetune local down"
    )


def _step(title: str) -> None:
    OUT.print(f"\n[bold]{title}[/bold]")


def _asset(name: str) -> Path:
    from finetune_local.paths import asset

    path = asset(name)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _show(shell: Shell, program: str, *arguments: str) -> None:
    OUT.print(f"$ {shlex.join([program, *arguments])}", style="cyan", highlight=False, markup=False)
    print_out(shell.run(program, *arguments).rstrip())
