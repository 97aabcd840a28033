"""Lists: selectors, resourceVersion, and pages that all show one moment."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Mapping

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.objects.storage import Store
from kube_emulator.apiserver.wire.selectors import Predicate, both, field_predicate, label_predicate

_KEPT_PAGES = 64


def selection(kind: Kind, query: Mapping[str, str]) -> Predicate | None:
    """What a request's selectors let through; None lets everything through."""
    return both(
        label_predicate(query.get("labelSelector", "")),
        field_predicate(kind, query.get("fieldSelector", "")),
    )


def version_of(query: Mapping[str, str]) -> int | None:
    """The asked resourceVersion; None where any will do. Raises StatusError 400."""
    text = query.get("resourceVersion", "")
    if text in ("", "0"):
        return None
    if not text.isdigit():
        raise errors.bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": invalid syntax'
        )
    return int(text)


class Lister:
    """Answers lists. A paged list keeps its remaining objects until they are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages: OrderedDict[str, list[Object]] = OrderedDict()
        self._issued = 0

    def page(
        self, kind: Kind, namespace: str, query: Mapping[str, str]
    ) -> tuple[list[Object], Object]:
        """Objects and list metadata. Raises StatusError 410 for a page that is no longer kept."""
        selects = selection(kind, query)
        version = version_of(query)
        if version is not None and version > self._store.version:
            raise errors.too_large_version(version, self._store.version)
        if token := query.get("continue"):
            objects, at = self._continued(token)
        else:
            objects = self._store.list(kind.storage_key, namespace)
            at = str(self._store.version)
            if selects is not None:
                objects = [obj for obj in objects if selects(obj)]
        limit = int(query.get("limit") or 0)
        meta: Object = {"resourceVersion": at}
        if limit and len(objects) > limit:
            meta["continue"] = self._keep(objects[limit:], at)
            if selects is None:
                meta["remainingItemCount"] = len(objects) - limit
            objects = objects[:limit]
        return objects, meta

    def _keep(self, rest: list[Object], at: str) -> str:
        self._issued += 1
        raw = json.dumps({"v": "meta.k8s.io/v1", "rv": int(at), "page": self._issued}).encode()
        token = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        self._pages[token] = rest
        if len(self._pages) > _KEPT_PAGES:
            self._pages.popitem(last=False)
        return token

    def _continued(self, token: str) -> tuple[list[Object], str]:
        if token not in self._pages:
            raise errors.expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            )
        padded = token + "=" * (-len(token) % 4)
        return self._pages[token], str(json.loads(base64.urlsafe_b64decode(padded))["rv"])
