"""`finetune reward`: reward functions on a laptop, before a job scores with them."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from finetune_cli.console import ERR, missing, pairs, paths, print_out, refusal
from finetune_cli.job_files import read_documents
from finetune_contract.reasons import exit_code

if TYPE_CHECKING:
    from finetune_cli.reward_files import Completions, RewardSet
    from finetune_cli.reward_report import Report
    from finetune_contract.rewards import Reward
    from finetune_rewards.panel import Panel

FOUND_WANTING = 1
PAUSE_SECONDS = 5.0  # a run waits longer for a service; who sits before a terminal looks himself

app = typer.Typer(help="Rewards: see what they score before a job does.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Keep `test` a command of its own."""


@app.command("test")
def try_rewards(
    rewards: Annotated[
        Path,
        typer.Argument(
            metavar="REWARDS.yaml",
            help="A list of rewards as in spec.method.grpo.rewards, or a FineTuneJob; ConfigMaps "
            "with Python source may stand beside it in the same file. - is stdin.",
        ),
    ],
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS.jsonl",
            help="Rows of the training data, each with a `completion`, or a list of `completions`.",
        ),
    ],
    completions: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Take the completions from this column."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REWARD=FILE",
            help="The Python source of a reward, instead of its ConfigMap. Repeatable.",
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REWARD=URL",
            help="Where to try an http reward, instead of its url, which may be known in the "
            "cluster only. Repeatable.",
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="A Secret that an http reward names, as a directory with the file `token`. "
            "Repeatable.",
        ),
    ] = None,
    header: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="What the chat template puts before a completion, where it opens the thought: "
            "'<think>'. A prompt that is text says it by its own end.",
        ),
    ] = "",
    log: Annotated[
        bool, typer.Option("--log", help="Show the runner's log: what Python rewards print.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score completions with rewards, as a GRPO job would, and show what they say.

    Builtin and Python rewards run in the same isolated runner as beside the trainer, services are
    called as in a run, and the total is made of all of them. Rewards that are models need the
    trainer's GPU and are left out.

    Put a good and a bad answer into each row, and see that the rewards tell them apart:

    `{"prompt": "2 + 3 =", "answer": "5", "completions": ["5", "It is 6."]}`

    Shown are the scores of each completion (`-` abstains, `error` never counts as 0), each reward's
    mean, spread, abstentions, errors and time, and warnings: of a reward that scores everything
    alike, and of completions that no reward scored.

    Exit code 0: every reward scores, without an error; 1: one fails, or abstains from everything;
    3: a file can not be used; else that of the reason that would stop a job (docs/reasons.md).

    Example: `finetune reward test rewards.yaml rows.jsonl --source style=style.py`
    """
    from finetune_cli.reward_files import read_rewards, read_rows
    from finetune_cli.reward_report import show

    sources, urls = paths(source, "REWARD=FILE"), pairs(url, "REWARD=URL")
    found = read_rewards(read_documents(rewards), sources, urls)
    credentials = _credentials(found, paths(secret, "NAME=DIR"))
    report = _score(found, read_rows(rows, completions, header), credentials, log)
    if as_json:
        print_out(json.dumps(report.to_json(), indent=2))
    else:
        show(report)
    if not report.ok:
        raise typer.Exit(FOUND_WANTING)


def _credentials(found: RewardSet, secrets: dict[str, Path]) -> dict[str, str]:
    unknown = set(found.secrets.values()) - secrets.keys()
    if unknown:
        name = min(unknown)
        raise refusal(f"a reward names the Secret {name!r}: give --secret {name}=DIR", 2)
    return {reward: str(secrets[name]) for reward, name in found.secrets.items()}


def _score(
    found: RewardSet, completions: Completions, credentials: dict[str, str], log: bool
) -> Report:
    try:
        from finetune_cli.reward_report import Column, Report
        from finetune_rewards.panel import Panel  # noqa: F401 - named here where it can not be had
        from finetune_rewards.scores.columns import check_columns
        from finetune_rewards.scores.errors import RewardError
        from finetune_rewards.scores.totals import totals
    except ModuleNotFoundError as error:
        raise missing(f"{error.name} is missing", "rewards") from None
    tried = [_for_a_try(reward) for reward in found.rewards if reward.model is None]
    untried = [reward.name for reward in found.rewards if reward.model is not None]
    if not tried:
        raise refusal("all rewards are models: none can be tried without the trainer", 2)
    try:
        check_columns(tried, completions.samples.columns)
        with ExitStack() as stack:
            panel = _panel(stack, tried, found.sources, credentials, log)
            with ERR.status("Loading the rewards"):
                panel.identities()
            with ERR.status(f"Scoring {len(completions.samples)} completions"):
                answers = panel.score(completions.samples)
            rows = [row for row, _ in completions.places]
            total = totals(panel.score_matrix(answers), tried, rows)
    except RewardError as error:
        raise refusal(error.message, exit_code(error.reason)) from None
    return Report(
        completions,
        [Column(r.name, answers[r.name], r.python is not None, r.gate is not None) for r in tried],
        [None if math.isnan(value) else value for value in total.tolist()],
        untried,
    )


def _for_a_try(reward: Reward) -> Reward:
    """Return a reward whose errors are shown, not counted, and whose service is not waited for."""
    from finetune_contract.rewards import OnError

    http = reward.http and reward.http.model_copy(update={"pause_seconds": PAUSE_SECONDS})
    return reward.model_copy(update={"on_error": OnError.MASK, "http": http})


def _panel(
    stack: ExitStack,
    rewards: list[Reward],
    sources: dict[str, str],
    credentials: dict[str, str],
    log: bool,
) -> Panel:
    from finetune_rewards.panel import Panel
    from finetune_rewards.runner.child import runner_child
    from finetune_rewards.runner.client import RunnerClient

    directory = Path(stack.enter_context(TemporaryDirectory(prefix="finetune-")))
    client = None
    if any(reward.isolated for reward in rewards):
        files = {}
        for name, text in sources.items():
            files[name] = directory / f"{name}.py"
            files[name].write_text(text, encoding="utf-8")
        socket = directory / "runner.sock"
        stack.enter_context(runner_child(rewards, files, socket, quiet=not log))
        client = RunnerClient(socket)
    return stack.enter_context(Panel.open(rewards, runner=client, credentials=credentials))
