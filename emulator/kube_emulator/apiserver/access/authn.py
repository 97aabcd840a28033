"""Who asks: the administrator's token, and tokens of ServiceAccounts (TokenRequest)."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Object
from kube_emulator.apiserver.objects.storage import Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
_ALGORITHM = "HS256"
_SHORTEST, _DEFAULT_SECONDS, _LONGEST = 600, 3600, 2**32


@dataclass(frozen=True)
class User:
    """An authenticated user, as role bindings name it."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_admin(self) -> bool:
        return "system:masters" in self.groups


ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


def account_user(namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    full = f"system:serviceaccount:{namespace}:{name}"
    return User(full, (*groups, "system:authenticated"))


class Authenticator:
    """Issues and checks bearer tokens; the signing key lives as long as the server."""

    def __init__(self, store: Store, admin_token: str | None = None) -> None:
        self._store = store
        self._key = secrets.token_bytes(32)
        self.admin_token = admin_token or secrets.token_urlsafe(32)

    def authenticate(self, header: str) -> User:
        """The user of an Authorization header. Raises StatusError 401."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise errors.unauthorized()
        user = self.user_of(token.strip())
        if user is None:
            raise errors.unauthorized()
        return user

    def user_of(self, token: str) -> User | None:
        """The user of a token; None if it is unknown, expired, or what it is bound to is gone."""
        if hmac.compare_digest(token.encode(), self.admin_token.encode()):
            return ADMIN
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self._key, algorithms=[_ALGORITHM], audience=[ISSUER]
            )
        except jwt.InvalidTokenError:
            return None
        bound = claims["kubernetes.io"]
        namespace, account = bound["namespace"], bound["serviceaccount"]
        if not self._is_there("serviceaccounts", namespace, account):
            return None
        if "pod" in bound and not self._is_there("pods", namespace, bound["pod"]):
            return None
        return account_user(namespace, account["name"])

    def _is_there(self, plural: str, namespace: str, reference: dict[str, str]) -> bool:
        found = self._store.get(f"/{plural}", namespace, reference["name"])
        return found is not None and found["metadata"]["uid"] == reference["uid"]

    def request_token(self, account: Object, request: Object) -> Object:
        """Answer a TokenRequest. Raises StatusError for what it is bound to and is not there."""
        spec = request.get("spec") or {}
        namespace = account["metadata"]["namespace"]
        seconds = int(spec.get("expirationSeconds") or _DEFAULT_SECONDS)
        if not _SHORTEST <= seconds <= _LONGEST:
            text = "may not specify a duration less than 10 minutes"
            message = (
                f'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: {text}'
            )
            raise errors.StatusError(422, "Invalid", message)
        audiences = spec.get("audiences") or [ISSUER]
        now = int(time.time())
        bound: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": _reference(account),
        }
        if reference := spec.get("boundObjectRef"):
            bound["pod"] = _reference(self._bound_pod(namespace, account, reference))
        claims = {
            "iss": ISSUER,
            "aud": audiences,
            "sub": f"system:serviceaccount:{namespace}:{account['metadata']['name']}",
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
            "kubernetes.io": bound,
        }
        token = jwt.encode(claims, self._key, algorithm=_ALGORITHM)
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + seconds))
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": account["metadata"]["name"], "namespace": namespace},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": expiry},
        }

    def _bound_pod(self, namespace: str, account: Object, reference: dict[str, str]) -> Object:
        if reference.get("kind") != "Pod":
            raise errors.not_implemented("tokens bound to anything but a Pod")
        pod = self._store.get("/pods", namespace, reference.get("name", ""))
        if pod is None:
            message = f'pods "{reference.get("name")}" not found'
            raise errors.StatusError(404, "NotFound", message)
        if reference.get("uid", pod["metadata"]["uid"]) != pod["metadata"]["uid"]:
            message = f"the UID in the bound object reference ({reference['uid']}) does not match"
            raise errors.StatusError(409, "Conflict", message)
        if pod["spec"].get("serviceAccountName") != account["metadata"]["name"]:
            name = pod["metadata"]["name"]
            message = f'cannot bind token for serviceaccount to pod "{name}" of another account'
            raise errors.StatusError(400, "BadRequest", message)
        return pod


def _reference(obj: Object) -> dict[str, str]:
    return {"name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]}
