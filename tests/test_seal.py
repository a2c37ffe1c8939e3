"""A sealed document comes back as it was, or is told to be another one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus.seal import seal, unseal

DOCUMENT = {"run": "a", "metrics": {"test": {"acc": 0.8125, "n": 156}}, "flags": [True, None, "é"]}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "seal"), VALUES))
def test_a_document_comes_back_after_a_trip_through_a_file(document):
    text = json.dumps(seal(document), indent=2)
    assert unseal(json.loads(text)) == (document, True)


def test_order_and_indentation_do_not_count():
    kept = seal(DOCUMENT)
    turned = dict(reversed(kept.items()))
    assert unseal(turned) == (DOCUMENT, True)


@pytest.mark.parametrize(
    "change",
    [{"run": "b"}, {"metrics": {"test": {"acc": 0.9125, "n": 156}}}, {"more": 1},
     {"seal": "0" * 64}, {"seal": None}],
)  # fmt: skip
def test_any_change_is_told(change):
    assert not unseal({**seal(DOCUMENT), **change})[1]


def test_a_document_without_a_seal_is_told():
    assert unseal(DOCUMENT) == (DOCUMENT, False)
