"""A store's identity: every choice that changes an embedding changes the key, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus.embeddings.key import StoreKey, digest_of

PREPROCESS = {"mean": (0.5,), "std": (0.25,), "fit": "pad", "canvas": 224, "rgb": True}
KEY = StoreKey(
    dataset_digest="ab" * 32,
    size=28,
    backbone="resnet18.a1_in1k",
    weights_sha256="cd" * 32,
    preprocess=PREPROCESS,
    feature="prelogits",
    precision="fp32",
    dtype="float32",
    task="multi-class",
)
OTHER = {
    "dataset_digest": "ac" * 32,
    "size": 64,
    "backbone": "resnet18.tv_in1k",
    "weights_sha256": "ce" * 32,
    "preprocess": {**PREPROCESS, "fit": "resize"},
    "feature": "pixels",
    "precision": "bf16",
    "dtype": "float16",
    "task": "ordinal-regression",
    "schema": 2,
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(StoreKey)])
def test_every_field_changes_the_digest(field):
    assert dataclasses.replace(KEY, **{field: OTHER[field]}).digest != KEY.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [("mean", (0.5000001,)), ("std", (0.26,)), ("fit", "native"), ("canvas", None), ("rgb", False)],
)
def test_every_preprocessing_choice_changes_the_digest(field, value):
    changed = dataclasses.replace(KEY, preprocess={**PREPROCESS, field: value})
    assert changed.digest != KEY.digest


def test_digest_is_sha256_of_the_fields_in_compact_sorted_json():
    fields = {
        "backbone": "resnet18.a1_in1k",
        "dataset_digest": "ab" * 32,
        "dtype": "float32",
        "feature": "prelogits",
        "precision": "fp32",
        "preprocess": {"canvas": 224, "fit": "pad", "mean": [0.5], "rgb": True, "std": [0.25]},
        "schema": 1,
        "size": 28,
        "task": "multi-class",
        "weights_sha256": "cd" * 32,
    }
    text = json.dumps(fields, separators=(",", ":"))
    assert KEY.digest == hashlib.sha256(text.encode()).hexdigest()


def test_digest_of_a_known_key_never_changes():
    # Stores that exist are found by this name; if it must change, raise the schema.
    assert KEY.digest == "823da8b2ca135d410aaaef2f804e8fe864a6506dc3f2a9f8becc5276cdd39b9d"


def test_key8_is_the_start_of_the_digest():
    assert KEY.key8 == KEY.digest[:8]


def test_order_of_preprocessing_fields_does_not_matter():
    turned = dict(reversed(PREPROCESS.items()))
    assert dataclasses.replace(KEY, preprocess=turned).digest == KEY.digest


def test_tuples_and_lists_are_the_same_key():
    listed = {**PREPROCESS, "mean": [0.5], "std": [0.25]}
    assert dataclasses.replace(KEY, preprocess=listed).digest == KEY.digest


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(mean=st.lists(finite, max_size=3), size=st.integers(1, 4096), backbone=st.text())
def test_key_is_equal_after_a_trip_through_json(mean, size, backbone):
    preprocess = {**PREPROCESS, "mean": tuple(mean)}
    key = dataclasses.replace(KEY, preprocess=preprocess, size=size, backbone=backbone)
    stored = json.loads(json.dumps(key.to_dict()))
    assert stored == key.to_dict()
    assert digest_of(stored) == key.digest
    assert StoreKey(**stored).digest == key.digest


def test_nan_has_no_canonical_form_and_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        digest_of({"mean": float("nan")})
