"""The runner as a process: `python -m finetune_rewards serve --rewards FILE --socket PATH`."""

from __future__ import annotations

from finetune_contract.start import heed_sigterm

if __name__ == "__main__":
    heed_sigterm()

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.rewards import Reward
from finetune_rewards.document import read_rewards
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import Problem
from finetune_rewards.runner.server import Server
from finetune_rewards.runner.start_failure import tell_start_failure
from finetune_rewards.scores.answers import one_line
from finetune_rewards.scores.errors import RewardChanged, RewardError

log = logging.getLogger(__name__)


def main() -> int:
    """Serve until SIGTERM or, if asked so, the end of standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s rewards %(levelname)s %(message)s")
    arguments = _arguments()
    if arguments.quiet:
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger(Server.__module__).setLevel(logging.CRITICAL)  # of what it describes
    try:
        rewards = read_rewards(arguments.rewards)
    except RewardError as error:
        log.error("%s", error.message)
        _tell(arguments.socket, Problem(error.reason, error.message))
        changed = isinstance(error, RewardChanged)
        return exit_code(error.reason if changed else Reason.INVALID_RUN_CONFIG)
    try:
        asyncio.run(_serve(rewards, dict(arguments.source), arguments.socket, arguments.until_eof))
    except Exception as error:
        # The process's edge: whoever waits at the socket is told, the log has the whole of it.
        log.exception("the runner can not go on")
        said = f"the reward runner can not go on: {type(error).__name__}: {one_line(str(error))}"
        _tell(arguments.socket, Problem(Reason.REWARD_UNAVAILABLE, said))
        return 1
    return 0


def _tell(socket: Path, problem: Problem) -> None:
    try:
        tell_start_failure(socket, problem)
    except OSError as error:
        log.error("nobody can be told at %s: %s", socket, error.strerror)


async def _serve(
    rewards: list[Reward], sources: dict[str, Path], socket: Path, until_eof: bool
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if until_eof:
        loop.add_reader(sys.stdin, stop.set)  # nobody writes to it, so it is readable at its end
    await Server(Runner(rewards, sources)).serve(socket, stop)


def _source(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_rewards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="score with the isolated ones of some rewards")
    serve.add_argument("--socket", type=Path, required=True)
    serve.add_argument("--rewards", type=Path, required=True, help="JSON list, as in a recipe")
    serve.add_argument(
        "--source",
        type=_source,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="where a reward's source lies; may be given again",
    )
    serve.add_argument("--quiet", action="store_true", help="log what no client is told")
    serve.add_argument("--until-eof", action="store_true", help="end with standard input")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
