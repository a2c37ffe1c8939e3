"""The record of a run, and the hash that names it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medplus.runs.record import RunRecord, config_hash, environment

FIELDS = {
    "run_id": "k5-00000000",
    "path": "runs/knn/toy/28/toynet/k5-00000000",
    "protocol": "knn",
    "dataset": "toy",
    "size": 28,
    "backbone": "toynet",
    "task": "multi-class",
    "n_classes": 3,
    "data_source": "custom",
    "licence": "",
    "weights": "none",
    "k": 5,
    "metrics": {"val": {"acc": 0.5}, "test": {"acc": 0.25, "acc_ci95": [0.1, 0.4]}},
    "seconds": 1.5,
    "cost": {"device": "cpu"},
    "config": {"k": 5},
    "store": {"key": "ab"},
    "environment": {"python": "3"},
    "created": "2024-01-01T00:00:00Z",
}

documents = st.dictionaries(
    st.text(max_size=5),
    st.one_of(st.integers(), st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False)),
    max_size=5,
)


def test_config_hash_is_sha256_of_compact_sorted_json():
    text = '{"a":[1,2.5],"k":5}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:8]
    assert config_hash({"k": 5, "a": (1, 2.5)}) == expected


@given(config=documents)
def test_config_hash_does_not_depend_on_order_or_a_trip_through_json(config):
    turned = dict(reversed(config.items()))
    assert config_hash(turned) == config_hash(config)
    assert config_hash(json.loads(json.dumps(config))) == config_hash(config)


@given(a=documents, b=documents)
def test_different_configs_have_different_hashes(a, b):
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (config_hash(a) == config_hash(b)) == same


def test_a_record_is_equal_after_a_trip_through_json():
    record = RunRecord(**FIELDS)
    assert RunRecord.model_validate(json.loads(json.dumps(record.to_dict()))) == record


def test_fields_that_do_not_apply_are_left_out():
    document = RunRecord(**FIELDS).to_dict()
    assert document["k"] == 5
    absent = ("seed", "lr", "weight_decay", "epochs_run", "best_epoch", "selected", "metric")
    assert not set(absent) & set(document)


def test_a_run_on_images_has_no_store():
    fields = {key: value for key, value in FIELDS.items() if key != "store"}
    record = RunRecord(**(fields | {"protocol": "finetune", "seed": 1, "epochs_run": 3}))
    assert record.store is record.store_key is None
    assert "store" not in record.to_dict()
    assert RunRecord.model_validate(json.loads(json.dumps(record.to_dict()))) == record


def test_runs_that_differ_in_their_recipe_only_are_one_group():
    record = RunRecord(**FIELDS)
    other = {"run_id": "x", "path": "x", "k": 1, "lr": 0.1, "config": {}, "metrics": {}}
    assert record.group == RunRecord(**(FIELDS | other)).group
    for changes in ({"seed": 2}, {"protocol": "probe"}, {"store": {"key": "cd"}}, {"size": 64}):
        assert record.group != RunRecord(**(FIELDS | changes)).group


@pytest.mark.parametrize(
    "wrong",
    [{"protocol": "magic"}, {"metrics": {"training": {}}}, {"size": "large"}, {"surprise": 1}],
)
def test_what_no_record_may_hold_is_refused(wrong):
    with pytest.raises(ValidationError):
        RunRecord(**(FIELDS | wrong))


def test_environment_names_the_versions_a_result_depends_on():
    found = environment()
    for package in ("torch", "numpy", "zarr", "timm"):
        assert found[package] == importlib.metadata.version(package)
    assert {"medplus", "python", "platform"} <= set(found)
    assert "faiss-gpu" in found or "faiss-cpu" in found
