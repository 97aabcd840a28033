"""Alerts and dashboard ask for what the operator exports; Prometheus itself judges the alerts."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason, Retry
from finetune_operator.cluster.cache import Cache
from finetune_operator.metrics import Metrics
from support.operator.charts import objects
from support.services.promtool import promtool

CASES = Path(__file__).with_name("alerts.yaml")
DOCS = Path(__file__).parents[4] / "docs" / "operations.md"
SERVED = ("monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule")
ALL = {kind: {"enabled": True} for kind in ("serviceMonitor", "alerts", "dashboard")}
OF_TARGETS = {"job", "pod", "up"}
Json = Any

program = promtool()
judged = pytest.mark.skipif(program is None, reason="no promtool: apt-get install prometheus")


def made(*served: str, **values: Json) -> dict[str, Json]:
    """Return the objects that watch over the operator, by kind."""
    kinds = ("ServiceMonitor", "PrometheusRule", "ConfigMap")
    return {o["kind"]: o for o in objects(*served, **values) if o["kind"] in kinds}


def rules() -> list[Json]:
    groups = made(*SERVED, metrics=ALL)["PrometheusRule"]["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> Iterator[Json]:
    text = made(metrics=ALL)["ConfigMap"]["data"]["finetune.json"]
    yield from json.loads(text)["panels"]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return [*asked, *(rule["expr"] for rule in rules())]


def exported() -> dict[str, set[str]]:
    """Return the labels of each series that the operator exports."""
    found: dict[str, set[str]] = {}
    for family in Metrics(Cache(), lambda: 0).registry.collect():
        labels = {*getattr(family, "_labelnames", ()), *LABELLED.get(family.name, ())}
        names = {
            "counter": [f"{family.name}_total"],
            "histogram": [f"{family.name}_{end}" for end in ("bucket", "count", "sum")],
        }.get(family.type, [family.name])
        found |= {name: labels | ({"le"} if name.endswith("bucket") else set()) for name in names}
    return found


LABELLED = {  # of families that tell no labels before the first sample
    "finetune_operator_reconciles": ("outcome",),
    "finetune_operator_attempts_ended": ("reason",),
    "finetune_operator_api_requests": ("verb", "kind", "code"),
}


def test_every_expression_asks_for_series_and_labels_that_exist() -> None:
    known = exported()
    assert len(expressions()) > 20
    for expression in expressions():
        names = set(re.findall(r"finetune_\w+", expression.split("#")[0]))
        assert names <= set(known), expression
        selected = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
        grouped = re.findall(r"(?:by|on) \(([^)]*)\)", expression)
        labels = {*selected, *(label.strip() for one in grouped for label in one.split(","))}
        assert labels - OF_TARGETS - {"le"} <= set().union(*(known.get(n, ()) for n in names)), (
            expression
        )


def test_states_and_retries_that_are_asked_for_exist() -> None:
    text = "\n".join(expressions())
    states = set(re.findall(r'state(?:=~|!=|=)"([^"]+)"', text))
    words = {"Waiting", "Running", "Stalled", "Failed", "Succeeded"}
    assert {word for state in states for word in state.split("|")} <= words
    assert set(re.findall(r'retry="([^"]+)"', text)) <= {retry.value for retry in Retry}
    assert set(re.findall(r'phase="([^"]+)"', text)) <= {phase.value for phase in Phase}


def test_an_alert_names_only_reasons_that_exist() -> None:
    (waits,) = (r for r in rules() if r["alert"] == "FineTuneJobWaits")
    named = re.findall(r"[A-Z][a-z]+[A-Z]\w+|Unschedulable", waits["annotations"]["description"])
    assert len(named) == 2
    assert set(named) <= set(Reason)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: dict[str, set[bool]] = {}
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for look in case["alert_rule_test"]:
            fires.setdefault(look["alertname"], set()).add(bool(look["exp_alerts"]))
    assert fires == {rule["alert"]: {True, False} for rule in rules()}


def test_the_documentation_lists_every_alert() -> None:
    documented = re.findall(r"`(FineTune(?:Operator|Job)[A-Z]\w+)`", DOCS.read_text())
    assert sorted(documented) == sorted(rule["alert"] for rule in rules())


@judged
def test_alerts_fire_when_they_should() -> None:
    done = subprocess.run([str(program), "test", "rules", str(CASES)], capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@judged
def test_prometheus_understands_what_is_rendered(tmp_path: Path) -> None:
    spec = made(*SERVED, metrics=ALL)["PrometheusRule"]["spec"]
    asked = [e.replace("$namespace", ".*") for e in expressions()]
    records = [{"record": f"panel:{at}", "expr": expr} for at, expr in enumerate(asked)]
    spec["groups"].append({"name": "dashboard", "rules": records})
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(spec))
    done = subprocess.run([str(program), "check", "rules", str(path)], capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_alerts_are_about_the_release() -> None:
    text = json.dumps(rules())
    assert 'job=\\"finetune-finetune-operator-metrics\\"' in text
    assert text.count("job=") == text.count('job=\\"finetune-finetune-operator-metrics\\"')
    for name in ("ServiceMonitor", "PrometheusRule"):
        assert made(*SERVED, metrics=ALL)[name]["metadata"]["namespace"] == "team"


def test_a_monitor_finds_the_service_and_keeps_the_namespaces_of_jobs() -> None:
    monitor = made(*SERVED, metrics=ALL)["ServiceMonitor"]["spec"]
    (service,) = (o for o in objects() if o["kind"] == "Service")
    wanted = monitor["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["honorLabels"] is True
    assert endpoint["interval"] == "30s"


def test_nothing_is_made_that_was_not_asked_for_or_is_not_served() -> None:
    assert made(*SERVED) == {}
    assert set(made(metrics=ALL)) == {"ConfigMap"}
    assert set(made(SERVED[0], metrics=ALL)) == {"ServiceMonitor", "ConfigMap"}
    assert set(made(SERVED[1], metrics=ALL)) == {"PrometheusRule", "ConfigMap"}


def test_labels_by_which_they_are_found() -> None:
    values = {kind: {**on, "labels": {"release": "prom"}} for kind, on in ALL.items()}
    for body in made(*SERVED, metrics=values).values():
        assert body["metadata"]["labels"]["release"] == "prom"
    usual = made(metrics=ALL)["ConfigMap"]["metadata"]["labels"]
    assert usual["grafana_dashboard"] == "1"


def test_panels_lie_side_by_side_and_have_units_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    numbers = []
    for panel in panels():
        at, numbers = panel["gridPos"], [*numbers, panel["id"]]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in _rows(at)}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len(set(numbers)) == len(numbers)


def _rows(at: Json) -> range:
    return range(at["y"], at["y"] + at["h"])


def test_a_drain_takes_one_operator_at_a_time() -> None:
    (budget,) = (o for o in objects() if o["kind"] == "PodDisruptionBudget")
    (deployment,) = (o for o in objects() if o["kind"] == "Deployment")
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": deployment["spec"]["selector"],
    }
    off = objects(podDisruptionBudget={"enabled": False})
    assert "PodDisruptionBudget" not in [o["kind"] for o in off]
