"""Where a job may send prompts and completions: Services of its namespace, and allowed hosts.

A host is compared as the resolver would see it: its labels alone, without user, port, case and
final dot. IP addresses are allowed by their exact text only.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

SETTING = "egress.allowedHosts"  # value of the chart
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"[0-9.]+|0x[0-9a-f.x]*")  # as resolvers read digits: 127.1, 0x7f000001


def refusal_of(url: str, namespace: str, allowed: Collection[str]) -> str | None:
    """Return why a URL may not be called, and the remedy; None if it may."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"{url} is no URL"
    if parts.scheme not in ("http", "https") or not host:
        return f"{url} names no host"
    if parts.username is not None:  # empty where there is a password alone
        return "put credentials into a Secret (credentialsSecretRef), not into the URL"
    name = _name(host)
    if name is None:
        return f"{host} is no host name; write an international one in its ASCII form (xn--)"
    if any(_matches(name, entry) for entry in allowed):
        return None
    if _is_service(name, namespace, absolute=host.endswith(".")):
        return None
    if name.count(".") == 1 and name.endswith(f".{namespace}"):
        return f"{name} may also be a host of the internet; if a Service is meant, write {name}.svc"
    return (
        f"{name} is neither a Service of namespace {namespace} nor an allowed host; whoever "
        f"installs the operator can allow it: set the chart's {SETTING} to [{name}]"
    )


def _name(host: str) -> str | None:
    """Return a host name or address, in lower case already, in one spelling; None if neither."""
    name = host.removesuffix(".")
    if ":" in name:  # an IPv6 address, of which urlsplit took the brackets
        return name if re.fullmatch(r"[0-9a-f:.]+", name) else None
    labels = name.split(".")
    return name if len(name) <= 253 and all(map(_LABEL.fullmatch, labels)) else None


def _is_service(name: str, namespace: str, *, absolute: bool) -> bool:
    """Tell whether a name stands for a Service of the namespace.

    A single label that no Service has is looked up in the node's search domains too.
    NAME.NAMESPACE is also looked up as it stands, so the namespace must be no top-level domain:
    those are letters alone, or begin with xn--. With a final dot only the full name is a Service's.
    """
    service, *rest = name.split(".")
    if ":" in name or not service[0].isalpha():  # an address
        return False
    full = [namespace, "svc", "cluster", "local"]
    if absolute:
        return rest == full
    domain = namespace.isalpha() or namespace.startswith("xn--")
    return rest in ([], full[:2], full) or (rest == full[:1] and not domain)


def _matches(name: str, entry: str) -> bool:
    """Compare with an exact host, or with `*.suffix`: at least one label before it."""
    known = entry.strip().lower().removesuffix(".")
    if known.startswith("*."):
        return name.endswith(known[1:]) and not _ADDRESS.fullmatch(name)
    return name == known
