"""`finetune run`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune_api.job import FineTuneJob
from finetune_cli.console import (
    ERR,
    INTERRUPTED,
    paths,
    print_error,
    print_out,
    print_warning,
    refusal,
    refusing,
)
from finetune_cli.job_files import Documents, jobs_in, parsed, read_documents
from finetune_cli.progress_bar import ProgressBar
from finetune_contract.reasons import advice, exit_code
from finetune_contract.result import Outcome, Result

if TYPE_CHECKING:
    from finetune_local.run import LocalRun


def run(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="YAML file with one FineTuneJob, and the ConfigMaps of its python rewards; "
            "- is stdin.",
        ),
    ],
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="A Secret that the job names, as a directory with one file per key. Repeatable.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Publish into this directory instead of spec.output.uri.",
            file_okay=False,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was interrupted, from its newest checkpoint.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="The code of a python reward; by default that of a ConfigMap in FILE. Repeatable.",
        ),
    ] = None,
    demo_data: Annotated[
        bool,
        typer.Option(
            "--demo-data",
            help="Serve the bucket of examples/quickstart.yaml and grpo.yaml while the job runs.",
        ),
    ] = False,
) -> None:
    """Train on this machine's devices, without a cluster.

    The same file, checks, trainer and artifact as on a cluster; all of the job's processes run
    here. The exit code is 0 when the adapter is published and verified, else that of the reason
    (docs/reasons.md). At Ctrl-C the trainer saves a checkpoint before it ends.

    Example: `finetune run examples/quickstart.yaml --demo-data --output ./adapters`
    """
    found = read_documents(file)
    job = _job(found)
    sources = _sources(found, job, paths(source, "NAME=FILE"))
    from finetune_local.run import CannotRun, prepare

    with ExitStack() as stack:
        secrets = paths(secret, "NAME=DIR")
        if demo_data:
            secrets |= _serve_demo_data(stack)
        with refusing(CannotRun, code=2):
            ready = prepare(job, secrets, output, resume, sources)
        result = _train(ready)
    if result.outcome is not Outcome.SUCCEEDED:
        raise typer.Exit(exit_code(result.reason) or 1)


def _job(found: Documents) -> FineTuneJob:
    jobs = jobs_in(found)
    if len(jobs) != 1:
        raise refusal(f"{found.name}: holds {len(jobs)} FineTuneJobs; give one")
    job = parsed(found, jobs[0])
    for line in found.warnings(jobs[0]):
        print_warning(line)
    return job


def _sources(found: Documents, job: FineTuneJob, given: dict[str, Path]) -> dict[str, str]:
    """Return the texts of the job's reward functions, by the reward's name."""
    if job.spec.method.grpo is None and not given:
        return {}
    from finetune_cli.reward_files import read_rewards

    return read_rewards(found, given).sources


def _serve_demo_data(stack: ExitStack) -> dict[str, Path]:
    from finetune_local.demo_bucket import serve_demo_bucket
    from finetune_local.s3 import S3Error

    with refusing(S3Error, code=1), ERR.status("Preparing the demo's model and data"):
        return stack.enter_context(serve_demo_bucket())


def _train(ready: LocalRun) -> Result:
    from finetune_local.run import execute

    ERR.print(f"run {ready.run_id}, log {ready.log}", highlight=False)
    if ready.changed:
        ERR.print(
            f"the file is not the one that the run was started with ({', '.join(ready.changed)}): "
            "only checkpoints of the same file count; without one the run starts at step 0",
            highlight=False,
        )
    try:
        with ProgressBar() as bar:
            result = execute(ready, bar.show)
    except KeyboardInterrupt:
        told = f"interrupted; go on with the same command and --resume {ready.run_id}"
        raise refusal(told, INTERRUPTED) from None
    if result.outcome is Outcome.SUCCEEDED and result.artifact is not None:
        if ready.run_id not in result.artifact.uri:
            ERR.print("the same adapter had been published before; nothing was trained")
        print_out(f"{result.artifact.uri}\n{result.artifact.digest}")
    else:
        if not result.message:
            print_error(ready.log_tail())
        print_error(f"{result.reason}: {result.message}\n{advice(result.reason)}".rstrip())
    return result
