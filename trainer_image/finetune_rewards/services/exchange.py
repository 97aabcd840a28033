"""Exchanges with a service over HTTP whose answers are foreign.

They are bounded in time and size, redirects are the caller's to refuse, and cookies are not kept.
"""

from __future__ import annotations

import os
import ssl
from http import HTTPStatus

import aiohttp


class BadAnswer(Exception):
    """The service answered, but nothing that can be used."""


def session(
    trusted: ssl.SSLContext, seconds: float, connect_seconds: float | None = None
) -> aiohttp.ClientSession:
    """Return a session whose exchanges take so long at most; how many is the caller's."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=trusted),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},  # what comes is then as large as it looks
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=connect_seconds),
        auto_decompress=False,
        trust_env=False,  # a proxy of the environment would see what is sent, and the token
    )


async def bounded(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the content, if it is neither compressed nor larger than `most` bytes."""
    if set(answer.headers.getall("Content-Encoding", ())) - {"identity"}:
        raise BadAnswer("the answer is compressed")
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > most:
            raise BadAnswer(f"the answer is larger than {most / 2**20:.3g} MiB")
    return bytes(content)


def spoken(status: int) -> str:
    """Return a status as people say it."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def unreached(problem: aiohttp.ClientConnectorError) -> str:
    """Return which host can not be reached, and why."""
    where = f"{problem.host}:{problem.port}"
    match problem:
        case aiohttp.ClientConnectorCertificateError(
            certificate_error=ssl.SSLCertVerificationError(verify_message=said)
        ):
            return f"the certificate of {where} is not trusted: {said}"
        case aiohttp.ClientSSLError():
            return f"no TLS with {where}: {getattr(problem.os_error, 'reason', problem.os_error)}"
        case aiohttp.ClientConnectorDNSError():
            return f"no address of {problem.host}: {problem.os_error.strerror}"
    cause = problem.os_error
    return f"no connection to {where}: {os.strerror(cause.errno) if cause.errno else cause}"
