"""`python -m kube_emulator.node --kubeconfig FILE --dir DIR`: run the node until stopped."""

import argparse
import asyncio
import sys
from pathlib import Path

from kube_emulator.client import Client
from kube_emulator.component import announce_ready, log_to_stderr, until_signalled
from kube_emulator.events import Recorder
from kube_emulator.node import log_server, machine
from kube_emulator.node.containers import sandbox
from kube_emulator.node.containers.images import Catalogue
from kube_emulator.node.kubelet import Kubelet
from kube_emulator.node.pods.context import HOST_IP, NodeContext


def main() -> int:
    options = _parse()
    log_to_stderr()
    try:
        sandbox.check()
    except sandbox.SandboxError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    asyncio.run(_run(options))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--dir", type=Path, required=True, help="pods, logs and claims go here")
    parser.add_argument("--name", default="emulated")
    parser.add_argument("--mask", type=Path, help="hidden from pods; default: --dir")
    parser.add_argument("--images", type=Path, help="JSON file: repository -> {entrypoint, ...}")
    parser.add_argument("--back-off", type=float, default=10.0, help="first back-off in seconds")
    parser.add_argument(
        "--capacity",
        action="append",
        default=[],
        metavar="RESOURCE=QUANTITY",
        help="overrides the machine's, or adds a resource that is not there",
    )
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    directory = options.dir.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    client = await Client.connect(options.kubeconfig)
    context = NodeContext(
        name=options.name,
        client=client,
        recorder=Recorder(client, "kubelet", options.name),
        catalogue=Catalogue.from_file(options.images) if options.images else Catalogue(),
        directory=directory,
        masked=(options.mask or directory).resolve(),
        back_off_seconds=options.back_off,
    )
    kubelet = Kubelet(context)
    runner, port = await log_server.serve(kubelet, HOST_IP)
    capacity = dict(pair.split("=", 1) for pair in options.capacity)
    try:
        await machine.register(client, machine.node_object(options.name, HOST_IP, port, capacity))
        announce_ready()
        await until_signalled(_work(kubelet, client, options.name))
    finally:
        await runner.cleanup()
        await client.close()


async def _work(kubelet: Kubelet, client: Client, name: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(kubelet.run())
        group.create_task(machine.heartbeat(client, name))


if __name__ == "__main__":
    sys.exit(main())
