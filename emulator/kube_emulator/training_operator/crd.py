"""Installs the PyTorchJob kind."""

import asyncio
from importlib import resources

import yaml

from kube_emulator.client import CRDS, ApiError, Client, Object

POLL_SECONDS = 0.05


def manifest() -> Object:
    """The CustomResourceDefinition."""
    text = resources.files(__package__).joinpath("pytorchjobs.yaml").read_text()
    loaded: Object = yaml.safe_load(text)
    return loaded


async def install(client: Client) -> None:
    """Create the kind unless it is there (a real one stays), and wait until it is served.

    Raises:
        ApiError: the API server refuses it.
    """
    crd = manifest()
    path = CRDS.path(None, crd["metadata"]["name"])
    try:
        await client.create(CRDS.path(), crd)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    while True:
        if _established(await client.get(path)):
            return
        await asyncio.sleep(POLL_SECONDS)


def _established(crd: Object) -> bool:
    conditions = crd.get("status", {}).get("conditions", [])
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
