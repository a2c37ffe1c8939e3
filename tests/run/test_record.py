"""The record of a run."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
from pydantic import ValidationError

from medplus.run.record import Provenance, RunRecord, environment
from tests.records import make_record


def back(record):
    return RunRecord.model_validate(json.loads(json.dumps(record.to_dict())))


def test_a_record_is_equal_after_a_trip_through_json():
    record = make_record()
    assert back(record) == record


def test_fields_that_do_not_apply_are_left_out():
    document = make_record(k=5).to_dict()
    assert document["k"] == 5
    absent = ("seed", "lr", "weight_decay", "epochs_run", "best_epoch", "selected", "metric")
    assert not set(absent) & set(document)


def test_json_tells_the_classes_in_order_and_their_number():
    document = make_record(classes=2).to_dict()
    assert document["classes"] == ["class 0", "class 1"]
    assert document["n_classes"] == 2


def test_a_run_on_images_has_no_store():
    record = make_record(
        protocol="finetune",
        seed=1,
        network={"dim": 4, "n_parameters": 9, "n_trainable": 9},
        training={
            "deterministic": "yes", "images": "on the device", "batch_norm": "one", "devices": 1,
            "compiled": False, "resumed": 0,
        },
    )  # fmt: skip
    assert record.store is record.store_key is None
    assert "store" not in record.to_dict()
    assert back(record) == record


def test_a_store_and_a_record_on_it_have_one_provenance(store_info):
    info = store_info((3, 2, 2), 4)
    found = Provenance.of(info)
    assert (found.spec, found.tag, found.dataset_digest) == (info.spec, info.tag, "d" * 64)
    assert found.classes == info.classes
    record = make_record().model_copy(update=dict(found))
    assert Provenance.of(record) == found


def test_runs_that_differ_in_their_recipe_only_are_one_group():
    record = make_record()
    other = {"run_id": "x", "path": "x", "k": 1, "lr": 0.1, "config": {"a": 1}, "metrics": {}}
    assert record.group == make_record(**other).group
    store = {"path": "/nowhere.zarr", "key": "cd"}
    for changes in ({"seed": 2}, {"protocol": "knn"}, {"store": store}, {"size": 64}):
        assert record.group != make_record(**changes).group


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": "magic"}, {"metrics": {"training": {}}}, {"size": "large"}, {"surprise": 1},
        {"store": {"key": "ab"}}, {"task": "guess"},
    ],
)  # fmt: skip
def test_what_no_record_may_hold_is_refused(wrong):
    with pytest.raises(ValidationError):
        RunRecord.model_validate(make_record().to_dict() | wrong)


def test_environment_names_the_versions_a_result_depends_on():
    found = environment()
    for package in ("torch", "numpy", "zarr", "timm"):
        assert found[package] == importlib.metadata.version(package)
    assert {"medplus", "python", "platform"} <= set(found)
    assert "faiss-gpu" in found or "faiss-cpu" in found
