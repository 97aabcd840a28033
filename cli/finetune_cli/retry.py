"""`finetune retry`: let a failed job go on."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Annotated, Any

import typer

from finetune_cli.console import print_out, refusal
from finetune_contract.foreign import printable

KUBECTL_FAILED = 4
LONGEST = 1000  # characters of what kubectl says
KIND = "finetunejobs.finetune.dev"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The FineTuneJob.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Its namespace; default is kubectl's.")
]


def retry(name: Name, namespace: Namespace = None) -> None:
    """Let a job that has failed go on from its newest checkpoint.

    Raises spec.runPolicy.retries by one with kubectl; attempts and deadline count anew. Remove the
    cause of the failure first. Exit code 3: the job has not failed; 4: kubectl failed.
    """
    scope = ["--namespace", namespace] if namespace else []
    job = json.loads(_kubectl("get", f"{KIND}/{name}", "--output=json", *scope))
    if (why := _has_not_failed(job)) is not None:
        raise refusal(f"finetunejob/{name} {why}; nothing was changed")
    patch = json.dumps(_raised(job))
    _kubectl("patch", f"{KIND}/{name}", "--type=merge", f"--patch={patch}", *scope)
    print_out(f"finetunejob/{name} goes on {_from(job)}")


def _has_not_failed(job: Any) -> str | None:
    """Return why a job can not be retried; None if it can."""
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or []}
    succeeded = conditions.get("Succeeded", {})
    if succeeded.get("status") == "True":
        return "has succeeded"
    if succeeded.get("status") != "False":
        return f"has not failed (it is {printable(succeeded.get('reason', 'new'))})"
    wanted, followed = _retries(job)
    return "was told to go on already" if wanted > followed else None


def _retries(job: Any) -> tuple[int, int]:
    """Return what the user asks for and what the operator has followed."""
    wanted = job["spec"].get("runPolicy", {}).get("retries", 0)
    return wanted, job["status"].get("retry", {}).get("retries", 0)


def _raised(job: Any) -> Any:
    """Return the patch; it fails if the job has changed since it was looked at."""
    return {
        "metadata": {"resourceVersion": job["metadata"]["resourceVersion"]},
        "spec": {"runPolicy": {"retries": max(_retries(job)) + 1}},
    }


def _from(job: Any) -> str:
    checkpoint = job["status"].get("checkpoint")
    return f"from step {checkpoint['step']}" if checkpoint else "from the start"


def _kubectl(*arguments: str) -> str:
    program = shutil.which("kubectl")
    if program is None:
        raise refusal("kubectl is not on the PATH", 2)
    ran = subprocess.run(
        [program, *arguments], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if ran.returncode:
        said = printable(ran.stderr.strip(), LONGEST) or f"ended with {ran.returncode}"
        raise refusal(
            f"kubectl {arguments[0]}: {said}; once that is mended, run the same again",
            KUBECTL_FAILED,
        )
    return ran.stdout
