"""Progress as a renewal of the attempt's Lease, with the pod's own ServiceAccount.

The standard library speaks HTTP here: the trainer needs one PATCH, not a client. Losing heartbeats
never stops the training: the operator sees that they stop, and in the log that the run does not.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

from finetune_contract.layout import Heartbeat
from finetune_contract.progress import ANNOTATION, COMPLAIN_SECONDS, Progress
from finetune_trainer.course.progress import Sink

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 10.0


def lease_sink(
    heartbeat: Heartbeat,
    namespace: str,
    service_account: Path = SERVICE_ACCOUNT,
    complain_seconds: float = COMPLAIN_SECONDS,
) -> Sink:
    """Return a sink that patches the Lease; its failures are logged now and then."""
    complained_at = -complain_seconds

    def beat(progress: Progress) -> None:
        nonlocal complained_at
        try:
            _patch(heartbeat.lease, namespace, progress, service_account)
            return
        except (OSError, http.client.HTTPException) as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - the thread's edge; its words may quote a token
            trouble = type(error).__name__
        if time.monotonic() - complained_at >= complain_seconds:
            complained_at = time.monotonic()
            log.warning("heartbeat failed, training goes on: %s", trouble)

    return beat


def _patch(lease: str, namespace: str, progress: Progress, service_account: Path) -> None:
    body = {
        "metadata": {"annotations": {ANNOTATION: progress.to_json()}},
        "spec": {
            "holderIdentity": socket.gethostname(),
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }
    # Read each time: the kubelet rotates the token and may rotate the certificate.
    token = (service_account / "token").read_text().strip()
    context = ssl.create_default_context(cafile=str(service_account / "ca.crt"))
    connection = http.client.HTTPSConnection(
        os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc"),
        int(os.environ.get("KUBERNETES_SERVICE_PORT", "443")),
        timeout=TIMEOUT_SECONDS,
        context=context,
    )
    try:
        connection.request(
            "PATCH",
            f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}",
            body=json.dumps(body),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/merge-patch+json",
            },
        )
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"the API server answered {answer.status}")
    finally:
        connection.close()
