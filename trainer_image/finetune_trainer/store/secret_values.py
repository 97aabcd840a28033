"""What is wrong with a value of a Secret, told from its form alone and without showing it.

HTTP libraries meet such a value late, and each in a way of its own: obstore panics at an address
without a scheme and at a line break in a key.
"""

from __future__ import annotations

import re
import ssl
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urlsplit

from finetune_contract.layout import CredentialKey
from finetune_rewards.services.service_secret import fault_of_form

HOST_AND_PATH = re.compile(r"[A-Za-z0-9._~\[\]:/-]+")  # what can be shown, and sent
REGION = re.compile(r"[A-Za-z0-9._-]+")
BASE64_OF_PEM = "LS0tLS1CRUdJTi"  # "-----BEGIN "
SCHEMES = ("http", "https")
SCHEME = re.compile(r"https?:/?", re.IGNORECASE)  # half of what stands before a host


def fault_of(key: CredentialKey, value: str) -> str | None:
    """Return what is wrong with a value, to follow the key's name in a message; None if nothing."""
    if key is CredentialKey.CA_CERTIFICATE:
        return _of_certificate(value)
    fault = fault_of_form(key, value)
    if fault is None and key is CredentialKey.ENDPOINT_URL:
        return _of_endpoint(value)
    if fault is None and key is CredentialKey.REGION and not REGION.fullmatch(value):
        return "is no region: write one such as us-east-1"
    return fault


def _of_endpoint(value: str) -> str | None:
    if "@" in value:  # not shown: it may be a password
        return "holds a user or a password: write http:// or https:// and the host alone"
    if "://" not in value:
        host = SCHEME.sub("", value, count=1)
        shown = host if host and HOST_AND_PATH.fullmatch(host) else "HOST:PORT"
        return f"has no scheme: write http://{shown} or https://{shown}"
    scheme, _, rest = value.partition("://")
    if scheme.lower() not in SCHEMES:
        return "begins with neither http:// nor https://"
    if "?" in value or "#" in value:
        return "has a query: write http:// or https:// and the host alone"
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - it is parsed here
    except ValueError:
        return "has a port or an IPv6 address that is none"
    if _is_no_address(parts.hostname or ""):
        return "has an IPv4 address that is none"
    if not parts.hostname or not HOST_AND_PATH.fullmatch(rest):
        return "has no host that can be asked for"
    return None


def _is_no_address(host: str) -> bool:
    """Tell whether a host ends in a number, as addresses alone do, and yet is no address."""
    if ":" in host or not host.removesuffix(".").rpartition(".")[2].isdecimal():
        return False  # of IPv6, which may end in an IPv4 address, `hostname` has judged
    try:
        IPv4Address(host.removesuffix("."))
    except AddressValueError:
        return True
    return False


def _of_certificate(value: str) -> str | None:
    if value.startswith(BASE64_OF_PEM):
        return "is encoded in base64 twice: kubectl's --from-file takes the PEM file as it is"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=value)
    except (ssl.SSLError, ValueError):
        return "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
    return None
