"""Which hosts a job may call: what a resolver could read otherwise is refused."""

import pytest

from finetune_operator.job.egress import refusal_of

NAMESPACE = "team-a"
ALLOWED = ("judge.example.com", "*.scores.example", "10.1.2.3", "fd00::7")


@pytest.mark.parametrize(
    "host",
    [
        "judge",
        "judge:8080",
        "JUDGE",
        "judge.team-a",
        "judge.team-a.svc",
        "judge.team-a.svc.cluster.local",
        "judge.team-a.svc.cluster.local.",
        "Judge.Example.COM",
        "judge.example.com.",
        "judge.example.com:8443",
        "a.scores.example",
        "a.b.scores.example",
        f"ab.{'a.' * 118}scores.example",
        "10.1.2.3",
        "[fd00::7]:80",
    ],
)
def test_services_of_the_namespace_and_allowed_hosts_may_be_called(host: str) -> None:
    for scheme in ("http", "https"):
        assert refusal_of(f"{scheme}://{host}/score", NAMESPACE, ALLOWED) is None


@pytest.mark.parametrize(
    "host",
    [
        "judge.team-b",
        "judge.team-b.svc.cluster.local",
        "a.judge.team-a.svc",
        "judge.team-a.svc.cluster",
        "judge.team-a.svc.cluster.local.evil.example",
        "judge.",
        "judge.team-a.",
        "judge.team-a.svc.",
        "evil.example",
        "evil-judge.example.com",
        "judge.example.com.evil.example",
        "scores.example",
        "evilscores.example",
        "-a.scores.example",
        f"ab.ab.{'a.' * 117}scores.example",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "10.1.2.4",
        "010.1.2.3",
        "[::1]",
        "[fd00::8]",
        "[::ffff:10.1.2.3]",
        "169.254.169.254",
        "judge%2eexample%2ecom",
        "judge\\.evil.example",
        "jüdge.example.com",
        "\uff4audge",
        "judge.example.com@evil.example",
        "user:word@judge.example.com",
        "user@judge",
        ":word@judge",
        "",
        ":80",
        "judge:port",
        "-judge",
        "1judge",
    ],
)
def test_all_others_may_not(host: str) -> None:
    assert refusal_of(f"http://{host}/score", NAMESPACE, ALLOWED) is not None


def test_a_namespace_that_may_be_a_top_level_domain_has_to_be_followed_by_svc() -> None:
    """`evil.dev` is looked up on the internet where namespace dev has no such Service."""
    for namespace in ("dev", "xn--p1ai"):
        refusal = refusal_of(f"http://evil.{namespace}/", namespace, ())
        assert refusal is not None
        assert f"write evil.{namespace}.svc" in refusal
        assert refusal_of(f"http://evil.{namespace}.svc/", namespace, ()) is None
        assert refusal_of("http://evil/", namespace, ()) is None
    assert refusal_of("http://evil.dev/", "dev", ("evil.dev",)) is None


@pytest.mark.parametrize("host", ["evil.example", "a.evil.dev"])
def test_a_host_that_can_be_no_service_is_not_told_to_become_one(host: str) -> None:
    refusal = refusal_of(f"http://{host}/", "dev", ())
    assert refusal is not None
    assert refusal == (
        f"{host} is neither a Service of namespace dev nor an allowed host; whoever installs the "
        f"operator can allow it: set the chart's egress.allowedHosts to [{host}]"
    )


def test_a_wildcard_is_no_wildcard_for_addresses_or_for_everything() -> None:
    assert refusal_of("http://10.1.2.3/", NAMESPACE, ("*.2.3",)) is not None
    assert refusal_of("http://0x7f.0.0.1/", NAMESPACE, ("*.0.1",)) is not None
    assert refusal_of("http://evil.example/", NAMESPACE, ("*.", "*..", "*", "")) is not None


def test_what_is_allowed_may_be_spelled_as_people_do() -> None:
    for entry in (" judge.example.com", "Judge.Example.COM", "judge.example.com.", "*.Example.com"):
        assert refusal_of("http://judge.example.com/", NAMESPACE, (entry,)) is None


def test_an_address_within_one_link_is_no_host() -> None:
    zone = "fe80::1%25eth0"
    assert refusal_of(f"http://[{zone}]/", NAMESPACE, (zone,)) is not None


def test_no_other_scheme() -> None:
    assert refusal_of("file:///etc/passwd", NAMESPACE, ALLOWED) is not None
    assert refusal_of("ftp://judge/score", NAMESPACE, ALLOWED) is not None


def test_a_password_in_the_url_is_not_repeated() -> None:
    refusal = refusal_of("http://user:hunter2@judge/score", NAMESPACE, ())
    assert refusal is not None
    assert "hunter2" not in refusal
