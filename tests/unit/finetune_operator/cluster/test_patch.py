"""The patch between two states of an object, applied as an API server does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.cluster.patch import merge_patch
from kube_emulator.apiserver.wire.patches import merge_patch as patched

Json = Any
VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_leads_from_the_old_to_the_new(old: Json, new: Json) -> None:
    patch = merge_patch(old, new)
    assert patched(old, patch) == new
    assert (patch == {}) == (old == new)


@pytest.mark.parametrize(("old", "new"), [(1.0, 1), (True, 1), ([{"a": 0.0}], [{"a": 0}])])
def test_a_number_of_another_type_is_another(old: Json, new: Json) -> None:
    assert merge_patch({"a": old, "b": new}, {"a": new, "b": new}) == {"a": new}
