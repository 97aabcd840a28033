"""The command line's root. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from finetune_cli import data, demo, local, retry, reward, run, validate
from finetune_cli.console import print_out

_HELP = """
Fine-tuning jobs: write a FineTuneJob, get back a verified LoRA adapter.

**On this machine**

* `finetune validate job.yaml`: check a file as the cluster would
* `finetune data check train.jsonl`: check data as the trainer would
* `finetune reward test rewards.yaml rows.jsonl`: see what rewards score
* `finetune run job.yaml`: train on this machine's devices
* `finetune demo`: the whole system, from nothing, in a few minutes

**On a cluster** with the operator installed

* `kubectl apply -f job.yaml`, then `kubectl get ftj -w`
* `finetune retry NAME`: let a job that has failed go on from its checkpoint

Exit codes: 0 done, 2 wrong usage, 3 invalid file, 130 interrupted; `finetune run` also ends with
the code of the reason that stopped it (docs/reasons.md).
"""

app = typer.Typer(
    help=_HELP,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command("validate")(validate.validate)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("retry")(retry.retry)
app.add_typer(data.app, name="data")
app.add_typer(reward.app, name="reward")
app.add_typer(local.app, name="local")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print_out(version("finetune-operator"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carry the options of the root command."""


def main() -> None:
    """Run the command line; being told to end cleans up as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    app()
