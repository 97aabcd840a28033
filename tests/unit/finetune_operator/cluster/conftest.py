"""A client, and the API server that answers it as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from finetune_operator.cluster.client import Cluster
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from support.services.api_server import ApiServer


@pytest.fixture
async def server() -> ApiServer:
    """Return the server, whose answers a test fills in."""
    return ApiServer()


@pytest.fixture
async def answers() -> list[tuple[str, str, int]]:
    """Return the list in which a test finds what the client told of each answer."""
    return []


@pytest.fixture
async def cluster(server: ApiServer, answers: list[tuple[str, str, int]]) -> AsyncIterator[Cluster]:
    """Connect a client to the server."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with TestServer(app) as running:
        configuration = Configuration()
        configuration.retries = None
        configuration.host = str(running.make_url(""))
        configuration.api_key = {"BearerToken": "secret-token"}
        configuration.api_key_prefix = {"BearerToken": "Bearer"}
        made = Cluster(configuration, resources(BACKEND.kinds))
        made.observer = lambda *told: answers.append(told)
        yield made
        await made.close()
