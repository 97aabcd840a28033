"""Every kind is found where Kubernetes serves it."""

import pytest

from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND

RESOURCES = resources(BACKEND.kinds)


@pytest.mark.parametrize(
    ("kind", "group", "version", "collection"),
    [
        ("Pod", "", "v1", "/api/v1/namespaces/team/pods"),
        ("Event", "", "v1", "/api/v1/namespaces/team/events"),
        ("ConfigMap", "", "v1", "/api/v1/namespaces/team/configmaps"),
        ("ServiceAccount", "", "v1", "/api/v1/namespaces/team/serviceaccounts"),
        (
            "Lease",
            "coordination.k8s.io",
            "v1",
            "/apis/coordination.k8s.io/v1/namespaces/team/leases",
        ),
        (
            "Role",
            "rbac.authorization.k8s.io",
            "v1",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/team/roles",
        ),
        (
            "RoleBinding",
            "rbac.authorization.k8s.io",
            "v1",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings",
        ),
        (
            "NetworkPolicy",
            "networking.k8s.io",
            "v1",
            "/apis/networking.k8s.io/v1/namespaces/team/networkpolicies",
        ),
        (
            "PyTorchJob",
            "kubeflow.org",
            "v1",
            "/apis/kubeflow.org/v1/namespaces/team/pytorchjobs",
        ),
        (
            "FineTuneJob",
            "finetune.dev",
            "v1alpha1",
            "/apis/finetune.dev/v1alpha1/namespaces/team/finetunejobs",
        ),
    ],
)
def test_a_kind_has_its_group_version_and_path(
    kind: str, group: str, version: str, collection: str
) -> None:
    resource = RESOURCES[kind]
    assert (resource.group, resource.version) == (group, version)
    assert resource.path("team") == collection
    assert resource.path("team", "a", "status") == f"{collection}/a/status"
    assert resource.path(None) == collection.replace("/namespaces/team", "")
