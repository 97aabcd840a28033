"""The chart's values as they reach the operator."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.job.policy import Policy
from finetune_operator.job.resources import children
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.charts import objects, rendered


def settings(**values: Any) -> Settings:
    (deployment,) = (o for o in objects(**values) if o["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    told = {
        "status.podIP": "10.0.0.7",
        "metadata.namespace": deployment["metadata"]["namespace"],
        "spec.serviceAccountName": pod["serviceAccountName"],
    }
    environment = {
        e["name"]: e["value"] if "value" in e else told[e["valueFrom"]["fieldRef"]["fieldPath"]]
        for e in container["env"]
    }
    return Settings.from_environment(environment)


def test_the_operator_may_do_to_each_kind_what_it_does() -> None:
    roles = (o for o in objects() if o["kind"] == "Role")
    (role,) = (r for r in roles if not r["metadata"]["name"].endswith("-leader"))
    allowed = {
        (group, plural): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for plural in rule["resources"]
    }
    for kind, resource in children(BACKEND.kinds).items():
        assert {"get", "list", "watch", "create", "delete"} <= allowed[
            resource.group, resource.plural
        ], kind


def test_hosts_that_jobs_may_call() -> None:
    assert settings().allowed_hosts == ()
    hosts = ["judge.example.com", "*.scores.example.com", "10.20.0.7"]
    assert settings(egress={"allowedHosts": hosts}).allowed_hosts == tuple(hosts)


@pytest.mark.parametrize("host", ["https://judge.example.com", "*", "Judge.example.com", "a,b"])
def test_what_is_no_host_is_refused(host: str) -> None:
    done = rendered(egress={"allowedHosts": [host]})
    assert done.returncode != 0
    assert "/egress/allowedHosts/0" in done.stderr


def test_secrets_of_the_trainers_registry() -> None:
    assert settings().trainer_pull_secrets == ()
    names = ["registry", "mirror.example"]
    assert settings(**{"trainerImage.pullSecrets": names}).trainer_pull_secrets == tuple(names)
    done = rendered(**{"trainerImage.pullSecrets": [{"name": "registry"}, "a,b", "Registry"]})
    assert all(f"/trainerImage/pullSecrets/{place}'" in done.stderr for place in range(3))


def test_what_jobs_may_name() -> None:
    usual = settings().policy
    assert usual == Policy(own_account=("team", "finetune-finetune-operator"))
    given = {
        "hostPath": ["/var/lib/models", "/mnt/*/models/", "/"],
        "images": ["ghcr.io/acme/*", "trainer@sha256:*"],
        "serviceAccounts": ["trainer-*", "*"],
        "uris": ["s3://team-*/*", "hf://*", "https://mlflow.example:5000", "*"],
    }
    policy = settings(policy=given).policy
    assert policy == replace(
        usual,
        host_path=tuple(given["hostPath"]),
        images=tuple(given["images"]),
        service_accounts=tuple(given["serviceAccounts"]),
        uris=tuple(given["uris"]),
    )


def test_what_is_no_pattern_is_refused() -> None:
    wrong = {
        "hostPath": ["", "models", "*", "//", "/a//b", "/a:b", "/a,b", "/$(HOME)", "/a b"],
        "images": ["", "/acme/*", "a,b", "a b", "$(POD_IP)"],
        "serviceAccounts": ["", "Trainer", "a/b", "a,b"],
        "uris": ["", "team-a/*", "ftp://x", "s3://a,s3://b", "s3://$(X)"],
        "other": [],
    }
    done = rendered(policy=wrong)
    assert done.returncode != 0
    for kind, patterns in wrong.items():
        assert all(f"/policy/{kind}/{place}'" in done.stderr for place in range(len(patterns)))
    assert "'other' not allowed" in done.stderr


def test_the_operators_elect_one_by_a_lease_that_is_theirs_alone() -> None:
    made = objects(watchNamespaces=["a"])
    by_kind = {kind: [o for o in made if o["kind"] == kind] for kind in ("Role", "RoleBinding")}
    namespace, _, lease = settings().leader_lease.partition("/")
    (role,) = (r for r in by_kind["Role"] if r["metadata"]["namespace"] == namespace)
    assert [(r["verbs"], r.get("resourceNames")) for r in role["rules"]] == [
        (["create"], None),
        (["get", "update"], [lease]),
    ]
    assert {x for r in role["rules"] for x in r["resources"]} == {"leases"}
    (binding,) = (b for b in by_kind["RoleBinding"] if b["metadata"]["namespace"] == namespace)
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (deployment,) = (o for o in made if o["kind"] == "Deployment")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    ]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"] == {"type": "RollingUpdate"}


def test_jobs_are_served_elsewhere_than_where_the_operator_is() -> None:
    made = objects(watchNamespaces=["a", "b"])
    account = next(o["metadata"] for o in made if o["kind"] == "ServiceAccount")
    assert account["namespace"] == "team"
    subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": "team"}
    for namespace in ("a", "b"):
        there = [o for o in made if o["metadata"].get("namespace") == namespace]
        assert sorted(o["kind"] for o in there) == ["Role", "RoleBinding"]
        (binding,) = (o for o in there if o["kind"] == "RoleBinding")
        (role,) = (o for o in there if o["kind"] == "Role")
        assert binding["subjects"] == [subject]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_how_the_operator_logs() -> None:
    assert (settings().log_level, settings().log_format) == ("INFO", "text")
    assert settings(operator={"logFormat": "json"}).log_format == "json"
    assert rendered(operator={"logFormat": "xml"}).returncode != 0


def granted(**values: Any) -> dict[str, Any]:
    """The rules that a release grants, by the kind of role and where it counts."""
    made = objects(**values)
    rules = {
        (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o["rules"]
        for o in made
        if o["kind"] in ("Role", "ClusterRole")
    }
    bindings = (o for o in made if o["kind"] in ("RoleBinding", "ClusterRoleBinding"))
    found = {}
    for body in bindings:
        place = body["metadata"].get("namespace")
        kind, name = body["roleRef"]["kind"], body["roleRef"]["name"]
        if not name.endswith("-leader"):
            found[place] = rules[kind, place, name]
    return found


def test_namespaces_are_named_or_chosen_by_labels_or_all() -> None:
    named = settings(watchNamespaces=["a", "b"])
    assert (named.watch_namespaces, named.watch_selector) == (("a", "b"), "")
    chosen = settings(watchNamespaces={"matchLabels": {"team": "ml", "tier": ""}})
    assert (chosen.watch_namespaces, chosen.watch_selector) == ((), "team=ml,tier=")
    everywhere = settings(watchNamespaces="All")
    assert (everywhere.watch_namespaces, everywhere.watch_selector) == ((), "")


def test_only_what_is_not_named_takes_rights_in_the_whole_cluster() -> None:
    rules = granted(watchNamespaces=["a"])["a"]
    assert set(granted(watchNamespaces=["a", "b"])) == {"a", "b"}
    assert set(granted()) == {"team"}
    assert granted(watchNamespaces="All") == {None: rules}
    by_labels = granted(watchNamespaces={"matchLabels": {"team": "ml"}})
    more = {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list"]}
    assert by_labels == {None: [*rules, more]}


@pytest.mark.parametrize(
    "wrong", ["Some", {}, {"matchLabels": {}}, {"matchLabels": {"a": "b,c=d"}}, ["A"]]
)
def test_what_chooses_no_namespaces_is_refused(wrong: Any) -> None:
    done = rendered(watchNamespaces=wrong)
    assert done.returncode != 0
    assert "/watchNamespaces" in done.stderr
