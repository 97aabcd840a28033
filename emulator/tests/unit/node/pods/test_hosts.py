"""Names that pods can resolve."""

from kube_emulator.client import Object
from kube_emulator.node.pods.hosts import Place, hosts_file


def place(name: str, address: str, *, ready: bool = True, namespace: str = "ns") -> Place:
    labels = {"app": name.rpartition("-")[0]}
    return Place(
        {"metadata": {"name": name, "namespace": namespace, "labels": labels}}, address, ready
    )


def service(name: str, namespace: str = "ns", **spec: object) -> Object:
    selected = {"clusterIP": "None", "selector": {"app": "a"}, **spec}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": selected}


def entries(own: Place, services: list[Object], places: list[Place]) -> dict[str, str]:
    """Name -> address, without localhost."""
    lines = [line.split() for line in hosts_file(own, "me", services, places).splitlines()]
    return {name: line[0] for line in lines for name in line[1:] if "local" not in line[1]}


def test_a_pod_knows_itself_and_headless_services() -> None:
    own, other = place("b-0", "127.77.0.1"), place("a-0", "127.77.0.2")
    assert entries(own, [service("s")], [own, other]) == {
        "me": "127.77.0.1",
        "s": "127.77.0.2",
        "s.ns": "127.77.0.2",
        "s.ns.svc": "127.77.0.2",
        "s.ns.svc.cluster.local": "127.77.0.2",
    }


def test_short_names_are_for_the_same_namespace() -> None:
    own = place("b-0", "127.77.0.1", namespace="elsewhere")
    found = entries(own, [service("s")], [own, place("a-0", "127.77.0.2")])
    assert "s" not in found
    assert found["s.ns"] == "127.77.0.2"


def test_a_service_shows_ready_pods_of_its_namespace_only() -> None:
    own = place("b-0", "127.77.0.1")
    starting = place("a-0", "127.77.0.2", ready=False)
    foreign = place("a-1", "127.77.0.3", namespace="elsewhere")
    assert set(entries(own, [service("s")], [own, starting, foreign])) == {"me"}
    shown = entries(own, [service("s", publishNotReadyAddresses=True)], [own, starting])
    assert shown["s"] == "127.77.0.2"


def test_the_first_ready_pod_answers() -> None:
    own = place("b-0", "127.77.0.1")
    pods = [place("a-2", "127.77.0.4"), place("a-1", "127.77.0.3"), place("a-0", "x", ready=False)]
    assert entries(own, [service("s")], pods)["s"] == "127.77.0.3"


def test_services_with_an_address_or_without_a_selector_give_no_name() -> None:
    own, other = place("b-0", "127.77.0.1"), place("a-0", "127.77.0.2")
    services = [service("s", clusterIP="10.0.0.1"), service("t", selector={})]
    assert set(entries(own, services, [own, other])) == {"me"}
