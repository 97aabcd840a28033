"""What a job may name outside itself: paths of nodes, images, ServiceAccounts, URIs, servers.

Whoever creates a job has the operator make pods; whoever installs the operator decides what these
may name, by the chart's values `policy` and `egress`. A field is judged by its type's mark (Reach).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, get_args
from urllib.parse import unquote

from pydantic.fields import FieldInfo

from finetune_api.job import FineTuneJob
from finetune_contract.layout import TrackingType
from finetune_contract.model import Message, Reach
from finetune_operator.job.egress import refusal_of
from finetune_operator.job.names import service_account_name

_LONGEST = 256  # of what a message repeats
_URIS = (Reach.URI, Reach.SERVER)


@dataclass(frozen=True)
class Policy:
    """What the chart allows. No patterns allow everything of a kind, but no path of a node."""

    host_path: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    own_account: tuple[str, str] | None = None  # namespace and name of the operator's own

    def of(self, reach: Reach) -> tuple[str, tuple[str, ...]]:
        """Return the chart's value that restricts a kind, and its patterns."""
        return {
            Reach.HOST_PATH: ("policy.hostPath", self.host_path),
            Reach.IMAGE: ("policy.images", self.images),
            Reach.SERVICE_ACCOUNT: ("policy.serviceAccounts", self.service_accounts),
            Reach.URI: ("policy.uris", self.uris),
            Reach.SERVER: ("policy.uris", self.uris),
        }[reach]


def refusals(job: FineTuneJob, policy: Policy) -> list[str]:
    """Return what is wrong with each field that names what the job may not, field first."""
    found = [_account_refusal(job, policy)]
    found.append(_tracker_refusal(job, policy))
    for field, reach, text in reaching(job.spec, "spec"):
        found.append(_refusal(field, reach, text, policy))
        if reach is Reach.SERVER and (why := refusal_of(text, job.namespace, policy.hosts)):
            found.append(f"{field}: {why}")
    return [refusal for refusal in found if refusal is not None]


def reaching(block: Message, path: str) -> Iterator[tuple[str, Reach, str]]:
    """Yield path, kind and text of every field of a block that names something outside the job."""
    for name, alias, reach in _telling_fields(type(block)):
        for label, item in _items(getattr(block, name)):
            where = f"{path}.{alias}{label}"
            if isinstance(item, Message):
                yield from reaching(item, where)
            elif reach is not None and item is not None:
                yield where, reach, str(item)


def reach_of(field: FieldInfo) -> Reach | None:
    """Return what a field's text, or those of its list, name outside the job; None for nothing."""
    marks = (*field.metadata, *_parts(field.annotation))
    return next((mark for mark in marks if isinstance(mark, Reach)), None)


@cache
def _telling_fields(block: type[Message]) -> tuple[tuple[str, str, Reach | None], ...]:
    """Return name, alias and kind of the fields that name something, or hold blocks that may."""
    found = []
    for name, field in block.model_fields.items():
        kinds = (field.annotation, *_parts(field.annotation))
        holds = any(isinstance(kind, type) and issubclass(kind, Message) for kind in kinds)
        if holds or reach_of(field):
            found.append((name, str(field.alias), reach_of(field)))
    return tuple(found)


def _parts(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


def _items(value: Any) -> list[tuple[str, Any]]:
    """Return a value as a list, each item with its name (or else its place) in brackets."""
    if isinstance(value, list | tuple):
        return [(f"[{getattr(item, 'name', place)}]", item) for place, item in enumerate(value)]
    return [("", value)]


def _account_refusal(job: FineTuneJob, policy: Policy) -> str | None:
    """The operator's account may grant rights in every namespace that it watches."""
    account = service_account_name(job)
    if (job.namespace, account) != policy.own_account:
        return None
    if job.spec.workers.service_account_name is None:
        return f"metadata.name: {account} is the operator's own ServiceAccount; choose another name"
    return (
        f"spec.workers.serviceAccountName: {account} is the operator's own ServiceAccount; "
        "name another one, or none"
    )


def _tracker_refusal(job: FineTuneJob, policy: Policy) -> str | None:
    """Where curves go that name no server, the trainer's version of the library decides."""
    tracking = job.spec.tracking
    unnamed = tracking and tracking.type is TrackingType.WANDB and tracking.uri is None
    if not unnamed or not policy.uris or "*" in policy.uris:
        return None
    return "spec.tracking.uri: name the server; the chart's policy.uris has to allow it"


def _refusal(field: str, reach: Reach, text: str, policy: Policy) -> str | None:
    value, patterns = policy.of(reach)
    if "*" in patterns or (not patterns and reach is not Reach.HOST_PATH):
        return None
    readings = {text, unquote(text)} if reach in _URIS else {text}
    if any("@" in _authority(reading) for reading in readings):
        return f"{field}: put credentials into a Secret (credentialsSecretRef), not into the URI"
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if not all(_is_clear(reading, reach) for reading in readings):
        return (
            f"{field}: {shown} can not be compared with the chart's {value}; "
            "write it without empty parts, `.`, `..` and backslashes"
        )
    if reach is Reach.HOST_PATH:
        patterns = tuple(p for path in patterns for p in (path, f"{path.rstrip('/')}/*"))
    if all(any(covers(p, reading) for p in patterns) for reading in readings):
        return None
    remedy = "use a claim, or ask" if reach is Reach.HOST_PATH else "name another one, or ask"
    return (
        f"{field}: {shown} is not among what the chart's {value} allows; {remedy} whoever "
        f"installs the operator to add it there"
    )


def covers(pattern: str, text: str) -> bool:
    """Tell whether a pattern allows a text: `*` stands for any characters but `/`, and as the last
    part of several for everything below."""
    wanted = pattern.removesuffix("/").split("/")
    given = text.removesuffix("/").split("/")
    if wanted[-1] == "*":
        given = given[: len(wanted)]
    literal = [part.replace("[", "[[]").replace("?", "[?]") for part in wanted]
    return len(given) == len(wanted) and all(map(fnmatchcase, given, literal))


def _authority(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


def _is_clear(text: str, reach: Reach) -> bool:
    """Tell whether a text has one reading only, so that none escapes what a pattern allows."""
    scheme, found, rest = text.partition("://")
    parts = (rest if found else text).removesuffix("/").split("/")
    if reach is Reach.HOST_PATH or scheme == "file":
        parts = parts[1:]  # before the first slash
    return "\\" not in text and not any(part in ("", ".", "..") for part in parts)
