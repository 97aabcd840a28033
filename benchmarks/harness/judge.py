"""A reward service that takes its time over each request and has no answer to some at first.

python judge.py PORT
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

SECONDS = 0.1
REFUSED_FIRST = 8  # one completion of so many


async def score(request: web.Request) -> web.Response:
    """Score by length; a completion whose number says so is refused the first time."""
    samples = (await request.json())["samples"]
    seen: set[str] = request.app[SEEN]
    key = request.headers["Idempotency-Key"]
    if samples[0]["columns"]["number"] % REFUSED_FIRST == 0 and key not in seen:
        seen.add(key)
        return web.Response(status=503)
    await asyncio.sleep(SECONDS)
    return web.json_response({"scores": [len(sample["completion"]) for sample in samples]})


SEEN: web.AppKey[set[str]] = web.AppKey("seen", set)

if __name__ == "__main__":
    app = web.Application()
    app[SEEN] = set()
    app.router.add_post("/score", score)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
