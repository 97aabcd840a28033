"""The cache shows the newest state that anyone has seen, and keeps what deleted pods said."""

import cProfile
from typing import Any

from finetune_operator.cluster.cache import _DEPARTED, _TOMBSTONES, Cache, Key, Scope

KEY = Key("team", "bot")


def labels(attempt: int = 1, uid: str = "j") -> dict[str, str]:
    return {
        "finetune.dev/job": "bot",
        "finetune.dev/job-uid": uid,
        "finetune.dev/attempt": str(attempt),
    }


def body(kind: str = "Pod", name: str = "bot-a1-master-0", **meta: Any) -> dict[str, Any]:
    known = {
        "name": name,
        "namespace": "team",
        "uid": "u1",
        "resourceVersion": "5",
        "labels": labels(),
    }
    return {"kind": kind, "metadata": {**known, **meta}}


def job(**meta: Any) -> dict[str, Any]:
    return body("FineTuneJob", "bot", labels={}, **meta)


def cache_with_job() -> Cache:
    cache = Cache()
    cache.put(job(uid="j", resourceVersion="1"))
    return cache


def names(cache: Cache, key: Key = KEY) -> list[str]:
    return [b["metadata"]["name"] for b in cache.children(key)]


def take_in_a_list(
    cache: Cache, kind: str, items: list[dict[str, Any]], at: str, scope: Scope
) -> set[Key]:
    changed = {key for item in items if (key := cache.put(item)) is not None}
    return changed | cache.lacks(kind, {i["metadata"]["uid"] for i in items}, at, scope)


def test_a_child_belongs_to_the_job_of_its_name_whatever_its_labels_say() -> None:
    cache = Cache()
    assert cache.put(body()) == KEY
    assert cache.put(body(name="stranger")) is None
    other = {**labels(), "finetune.dev/job": "other"}
    assert cache.put(body(labels=other, resourceVersion="6")) == KEY
    assert cache.put(body(labels=None, resourceVersion="7")) == KEY
    assert cache.children(Key("team", "other")) == []
    assert names(cache) == ["bot-a1-master-0"]
    assert cache.job(KEY) is None
    assert cache.put(job()) == KEY
    assert cache.job(KEY) is not None
    assert [key for key, _ in cache.jobs()] == [KEY]


def test_an_older_or_equal_state_is_no_news() -> None:
    cache = Cache()
    cache.put(body(resourceVersion="10"))
    assert cache.put(body(resourceVersion="9", note="old")) is None
    assert cache.put(body(resourceVersion="10", note="same")) is None
    assert cache.put(body(resourceVersion="11", note="new")) == KEY
    assert cache.children(KEY)[0]["metadata"]["note"] == "new"


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put(body(resourceVersion="9"))
    assert cache.put(body(resourceVersion="10")) == KEY


def test_a_deleted_object_never_comes_back() -> None:
    cache = Cache()
    cache.put(body())
    assert cache.remove(body(resourceVersion="6")) == KEY
    assert cache.put(body(resourceVersion="6")) is None
    assert names(cache) == []


def test_an_object_that_only_lost_its_label_comes_back() -> None:
    cache = cache_with_job()
    cache.put(body())
    cache.remove(body(resourceVersion="6"))
    assert cache.put(body(resourceVersion="7")) == KEY
    assert names(cache) == ["bot-a1-master-0"]
    assert cache.departed(KEY) == []


def test_what_a_list_lacks_is_dead_up_to_that_list() -> None:
    cache = cache_with_job()
    cache.put(body())
    take_in_a_list(cache, "Pod", [], "9", None)
    assert cache.put(body(resourceVersion="9")) is None
    assert cache.put(body(resourceVersion="10")) == KEY


def test_what_the_server_answers_with_is_there() -> None:
    cache = cache_with_job()
    cache.put(body())
    take_in_a_list(cache, "Pod", [], "9", None)
    cache.answered(body())
    assert names(cache) == ["bot-a1-master-0"]
    cache.bury(body())
    cache.answered(body())
    assert names(cache) == []


def test_what_was_answered_is_nobodys_question_once_another_has_its_name() -> None:
    cache = cache_with_job()
    cache.answered(body())
    assert [found["metadata"] for found in cache.unwatched()] == [body()["metadata"]]
    cache.put(body(uid="u2", resourceVersion="9"))
    assert cache.unwatched() == []


def test_what_is_buried_never_comes_back() -> None:
    cache = cache_with_job()
    cache.put(body())
    cache.bury(body())
    assert cache.remove(body(resourceVersion="6")) is None
    assert cache.put(body(resourceVersion="99")) is None
    assert names(cache) == []


def test_a_deletion_that_is_seen_first_is_remembered() -> None:
    cache = Cache()
    assert cache.remove(body(resourceVersion="6")) is None
    assert cache.put(body()) is None
    cache.put(job(uid="j"))
    cache.remove(job(uid="j"))
    assert cache.put(job(uid="j", resourceVersion="9")) is None
    assert cache.job(KEY) is None


def test_only_so_many_deletions_are_remembered_the_newest_of_them() -> None:
    cache = Cache()
    for number in range(_TOMBSTONES + 1):
        cache.remove(body(uid=str(number)))
    assert cache.put(body(uid=str(_TOMBSTONES))) is None
    assert cache.put(body(uid="1")) is None
    assert cache.put(body(uid="0")) == KEY


def test_the_deletion_of_a_stranger_is_no_news() -> None:
    assert Cache().remove(body(name="stranger")) is None


def test_the_deletion_of_a_predecessor_leaves_its_successor() -> None:
    cache = Cache()
    cache.put(body(uid="new", resourceVersion="8"))
    assert cache.remove(body(uid="old", resourceVersion="7")) is None
    assert names(cache) == ["bot-a1-master-0"]


def test_a_successor_replaces_and_the_predecessor_stays_dead() -> None:
    cache = cache_with_job()
    cache.put(body(uid="old"))
    cache.put(body(uid="new", resourceVersion="8"))
    assert cache.put(body(uid="old", resourceVersion="9")) is None
    assert [b["metadata"]["uid"] for b in cache.departed(KEY)] == ["old"]


def test_the_last_words_of_pods_are_kept_for_the_newest_attempt() -> None:
    cache = cache_with_job()
    cache.put(body(note="running"))
    cache.remove(body(resourceVersion="6", note="ended"))
    assert [b["metadata"]["note"] for b in cache.departed(KEY)] == ["ended"]
    cache.put(body(name="bot-a1-worker-0", uid="w1"))
    cache.remove(body(name="bot-a1-worker-0", uid="w1", resourceVersion="6"))
    assert [b["metadata"]["uid"] for b in cache.departed(KEY)] == ["u1", "w1"]
    later = labels(attempt=2)
    cache.put(body(name="bot-a2-master-0", uid="u2", labels=later))
    cache.remove(body(name="bot-a2-master-0", uid="u2", labels=later, resourceVersion="6"))
    assert [b["metadata"]["uid"] for b in cache.departed(KEY)] == ["u2"]


def test_what_pods_of_an_earlier_job_of_the_name_said_is_not_kept() -> None:
    cache = cache_with_job()
    for uid in ("u1", "u2"):
        cache.put(body(name=f"bot-a1-{uid}", uid=uid))
    cache.remove(body(name="bot-a1-u1", uid="u1"))
    assert len(cache.departed(KEY)) == 1
    cache.put(job(uid="next", resourceVersion="7"))
    assert cache.departed(KEY) == []
    cache.remove(body(name="bot-a1-u2", uid="u2"))
    assert cache.departed(KEY) == []


def test_a_late_deletion_event_does_not_hide_a_newer_state() -> None:
    cache = cache_with_job()
    cache.put(body(resourceVersion="9", note="ended"))
    cache.remove(body(resourceVersion="8", note="running"))
    assert [b["metadata"]["note"] for b in cache.departed(KEY)] == ["ended"]


def test_only_pods_have_last_words() -> None:
    cache = cache_with_job()
    cache.put(body("Lease"))
    cache.remove(body("Lease"))
    assert cache.departed(KEY) == []


def test_a_list_adds_changes_and_removes() -> None:
    cache = Cache()
    cache.put(body(name="bot-a1-stays", uid="a", resourceVersion="1"))
    cache.put(body(name="bot-a1-goes", uid="b", resourceVersion="2"))
    cache.put(body("Lease", name="bot-a1", uid="c", resourceVersion="2"))
    listed = [
        body(name="bot-a1-stays", uid="a", resourceVersion="1"),
        body(name="bot-a1-comes", uid="d", resourceVersion="3"),
    ]
    assert take_in_a_list(cache, "Pod", listed, "10", None) == {KEY}
    assert sorted(names(cache)) == ["bot-a1", "bot-a1-comes", "bot-a1-stays"]
    assert take_in_a_list(cache, "Pod", listed, "10", None) == set()


def test_a_list_does_not_remove_what_is_newer_than_it() -> None:
    cache = Cache()
    cache.put(body(resourceVersion="11"))
    assert take_in_a_list(cache, "Pod", [], "10", None) == set()
    assert names(cache) == ["bot-a1-master-0"]
    assert take_in_a_list(cache, "Pod", [], "", None) == set(), "it does not say how new it is"
    assert take_in_a_list(cache, "Pod", [], "11", None) == {KEY}


def test_a_list_speaks_of_its_scope_only() -> None:
    cache = Cache()
    elsewhere = Key("elsewhere", "bot")
    cache.put(body())
    cache.put(body(namespace="elsewhere", uid="u2"))
    other = {"finetune.dev/job": "other"}
    cache.put(body(name="other-a1-master-0", uid="u3", labels=other))
    assert take_in_a_list(cache, "Pod", [], "99", KEY) == {KEY}
    assert names(cache, Key("team", "other")) == ["other-a1-master-0"]
    assert take_in_a_list(cache, "Pod", [], "99", "team") == {Key("team", "other")}
    assert names(cache, elsewhere) == ["bot-a1-master-0"]
    cache.put(job(uid="j"))
    assert take_in_a_list(cache, "FineTuneJob", [], "99", "elsewhere") == set()
    assert take_in_a_list(cache, "FineTuneJob", [], "99", "team") == {KEY}


def test_a_job_that_is_gone_is_forgotten_with_its_last_child() -> None:
    cache = Cache()
    cache.put(job(uid="j"))
    cache.put(body())
    cache.put(body(name="bot-a1-worker-0", uid="u2"))
    cache.remove(body())
    assert len(cache.departed(KEY)) == 1
    cache.remove(job(uid="j"))
    assert cache.job(KEY) is None
    assert names(cache) == ["bot-a1-worker-0"]
    cache.remove(body(name="bot-a1-worker-0", uid="u2"))
    assert cache.departed(KEY) == []


def test_managed_fields_are_not_kept() -> None:
    cache = Cache()
    cache.put(body(managedFields=[{"manager": "kubelet"}]))
    assert "managedFields" not in cache.children(KEY)[0]["metadata"]


def owned(by: str, **meta: Any) -> dict[str, Any]:
    return body(ownerReferences=[{"kind": "PyTorchJob", "uid": by, "controller": True}], **meta)


def test_last_words_have_a_bound_and_those_of_the_jobs_own_pods_stay() -> None:
    """Anyone may make a pod of a planned name, and delete it, over and over."""
    cache = cache_with_job()
    cache.put(body("PyTorchJob", "bot-a1", uid="workload"))
    cache.put(owned("workload", uid="own"))
    cache.remove(owned("workload", uid="own", resourceVersion="6"))
    for number in range(_DEPARTED + 100):
        stray = owned("another's", uid=f"s{number}", resourceVersion=str(10 + number))
        cache.put(stray)
        cache.remove(stray)
    kept = [b["metadata"]["uid"] for b in cache.departed(KEY)]
    assert len(kept) == _DEPARTED
    assert (kept[0], kept[-1]) == ("own", f"s{_DEPARTED + 99}")


def test_of_very_many_pods_of_its_own_the_newest_words_stay() -> None:
    cache = cache_with_job()
    cache.put(body("PyTorchJob", "bot-a1", uid="workload"))
    for number in range(_DEPARTED + 1):
        mine = owned("workload", uid=f"p{number}", resourceVersion=str(10 + number))
        cache.put(mine)
        cache.remove(mine)
    kept = [b["metadata"]["uid"] for b in cache.departed(KEY)]
    assert (kept[0], len(kept)) == ("p1", _DEPARTED)


def test_what_it_shows_is_the_readers_own() -> None:
    cache = cache_with_job()
    given = body(note=["a"])
    cache.put(given)
    given["metadata"]["note"].append("b")
    cache.children(KEY)[0]["metadata"]["note"].append("c")
    assert cache.children(KEY)[0]["metadata"]["note"] == ["a"]


def test_no_last_words_are_read_to_take_in_more_of_them() -> None:
    cache, profile = cache_with_job(), cProfile.Profile()
    many = 60
    with profile:
        for number in range(many):
            mine = body(uid=f"p{number}", resourceVersion=str(10 + number))
            cache.put(mine)
            cache.remove(mine)
            cache.put(job(uid="j", resourceVersion=str(1000 + number)))
    read = sum(e.callcount for e in profile.getstats() if getattr(e.code, "co_name", "") == "loads")
    assert len(cache.departed(KEY)) == many
    assert read <= 2 * many


def test_how_a_child_was_stored_is_forgotten_with_it() -> None:
    planned = body("ConfigMap", "bot-a1", annotations={"finetune.dev/plan": "p"})
    gone = [
        lambda cache: cache.remove(planned),
        lambda cache: cache.put(
            body("ConfigMap", "bot-a1", uid="another", resourceVersion="6", labels=labels())
        ),
    ]
    for go in gone:
        cache = cache_with_job()
        cache.put(planned)
        cache.leave(planned, planned)
        assert cache.is_left(planned, planned)
        go(cache)
        assert not cache.is_left(planned, planned)
