"""`python -m kube_emulator.training_operator --kubeconfig FILE`: run until stopped."""

import argparse
import asyncio
from pathlib import Path

from kube_emulator.client import Client
from kube_emulator.component import announce_ready, log_to_stderr, until_signalled
from kube_emulator.training_operator import crd
from kube_emulator.training_operator.controller import Controller
from kube_emulator.training_operator.pods import InitWait


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--pytorch-init-container-max-tries", type=int, default=1000)
    parser.add_argument("--pytorch-init-container-seconds", type=float, default=0.2)
    options = parser.parse_args()
    log_to_stderr()
    wait = InitWait(
        options.pytorch_init_container_max_tries, options.pytorch_init_container_seconds
    )
    asyncio.run(_run(options.kubeconfig, wait))


async def _run(kubeconfig: Path, wait: InitWait) -> None:
    client = await Client.connect(kubeconfig)
    try:
        await crd.install(client)
        announce_ready()
        await until_signalled(Controller(client, wait).run())
    finally:
        await client.close()


if __name__ == "__main__":
    main()
