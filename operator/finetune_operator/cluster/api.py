"""What the reconciler asks of an API server; `cluster` is the one that sends requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from finetune_contract.foreign import printable
from finetune_operator.job.names import Object


class ApiError(Exception):
    """The API server's refusal: HTTP code, the Status object's reason and message.

    A webhook's words may be anything: they go on bounded, on one line.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        reason, message = printable(reason), printable(message)
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message


class Unreachable(Exception):
    """The API server gave no answer."""


class Unreadable(Unreachable):
    """What a watch shows can not be read; a list may tell it."""


class NotLeading(Unreachable):
    """Nothing was sent: another operator may be at work."""


@dataclass(frozen=True)
class Listing:
    """A page of a collection and the resourceVersion at which the whole collection was there;
    `following` asks for the next page, and is empty on the last."""

    items: tuple[Object, ...]
    version: str
    following: str = ""


@dataclass(frozen=True)
class Change:
    """What a watch shows: an object's state, or its last one; `body` is None where all that changed
    is the resourceVersion up to which the watch has shown everything."""

    version: str
    body: Object | None = None
    deleted: bool = False


class Api(Protocol):
    """Requests by kind; every method raises ApiError or Unreachable."""

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        """Return a page of the objects that match a label selector; "" is the first."""

    def watch(
        self, kind: str, namespace: str | None, selector: str, version: str
    ) -> AsyncGenerator[Change]:
        """Yield what has changed since a version, until the server has enough, which is no failure.

        ApiError 410 if it does not remember that version; Unreadable."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none."""

    async def create(self, body: Object) -> Object:
        """Create and return what was stored. ApiError 409 AlreadyExists if the name is taken."""

    async def apply(self, body: Object) -> Object:
        """Server-side apply, with force: the operator's fields are the operator's."""

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, at_once: bool = False
    ) -> None:
        """Delete that very object, its dependents in the background; no error if it is gone.

        `at_once` is for pods: without the time to end, and without their nodes' confirmation.
        """

    async def patch_status(self, body: Object, status: Object) -> Object:
        """Make `status` the status of `body`; ApiError 409 Conflict if it is not the newest."""

    async def events_of(self, namespace: str, uid: str) -> list[Object]:
        """Return the Events about an object."""

    async def has_logged(self, namespace: str, pod: str, container: str, seconds: int) -> bool:
        """Tell whether a container has written to its log within so many seconds."""

    async def patch_event(self, namespace: str, name: str, patch: Object) -> None:
        """Merge into an Event."""
