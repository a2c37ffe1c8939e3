"""Runs on disk: whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from medplus.errors import RunError
from medplus.run import ledger
from medplus.run.ledger import (
    evaluation_folder,
    find_run,
    finish_run,
    list_runs,
    read_predictions,
    read_record,
    read_runs,
    run_folder,
    save_run,
)
from tests import records

pytestmark = pytest.mark.usefixtures("fast_disk")

PREDICTIONS = {
    "val_score": np.eye(3, dtype="f4"),
    "val_true": np.arange(3, dtype="u1")[:, None],
    "val_index": np.arange(3),
}
HEAD = {"weight": np.ones((3, 2), "f4"), "bias": np.zeros(3, "f4")}


def make_record(folder, acc=0.5, **more):
    metrics = {"val": {"acc": acc}}
    return records.make_record(run_id=folder.name, path=str(folder), metrics=metrics, **more)


@pytest.fixture
def folder(tmp_path):
    return run_folder(tmp_path, "probe", "toy", 28, "toynet", "name-00000000")


def everything_in(root):
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}


# --- writing and reading ----------------------------------------------------------------------


def test_folder_is_protocol_dataset_size_backbone_run(tmp_path, folder):
    assert folder == tmp_path / "probe/toy/28/toynet/name-00000000"


@pytest.mark.parametrize("name", ["hf-hub:a/b", "../../etc", ".hidden", "a b;c", "..", ""])
def test_no_name_leaves_its_folder(name, tmp_path):
    folder = run_folder(tmp_path, "knn", name, 28, name, "id")
    parts = folder.relative_to(tmp_path).parts
    assert len(parts) == 5
    assert not any(part.startswith(".") or part == "" for part in parts)


def test_a_saved_run_is_read_back(folder):
    record = make_record(folder)
    save_run(record, PREDICTIONS, HEAD)
    assert read_record(folder) == find_run(folder) == record
    predictions = read_predictions(folder)
    assert predictions.keys() == PREDICTIONS.keys()
    for name, values in PREDICTIONS.items():
        assert predictions[name].dtype == values.dtype
        np.testing.assert_array_equal(predictions[name], values)
    head = load_file(folder / "head.safetensors")
    np.testing.assert_array_equal(head["weight"], HEAD["weight"])


def test_selection_is_not_stored(folder):
    save_run(make_record(folder, selected=True), PREDICTIONS)
    assert "selected" not in json.loads((folder / "record.json").read_text())
    assert read_record(folder).selected is None


def test_a_run_that_was_moved_is_read_where_it_is(folder, tmp_path):
    save_run(make_record(folder), PREDICTIONS)
    moved = folder.rename(tmp_path / "elsewhere")
    assert read_record(moved).path == str(moved)


def test_a_run_that_has_not_been_done_is_none(folder):
    assert find_run(folder) is None
    folder.mkdir(parents=True)
    assert find_run(folder) is None


def test_a_folder_without_a_record_gives_way_to_its_run(folder):
    folder.mkdir(parents=True)  # as a removal that was interrupted leaves it
    save_run(make_record(folder), PREDICTIONS)
    assert find_run(folder) == make_record(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_run_replaces_an_existing_one_and_all_its_files(folder):
    save_run(make_record(folder, acc=0.5), PREDICTIONS, HEAD)
    save_run(make_record(folder, acc=0.9), PREDICTIONS)
    assert read_record(folder).metrics["val"]["acc"] == 0.9
    assert not (folder / "head.safetensors").exists()
    assert list(folder.parent.iterdir()) == [folder]


def test_runs_are_listed_sorted_without_what_is_being_written(tmp_path):
    folders = [
        run_folder(tmp_path, protocol, "toy", 28, "toynet", name)
        for protocol, name in [("probe", "b"), ("knn", "z"), ("probe", "a")]
    ]
    for folder in folders:
        save_run(make_record(folder), PREDICTIONS)
    hidden = folders[0].with_name(".b.tmp-1-2")
    hidden.mkdir()
    (hidden / "record.json").write_text("{}")
    folders[0].with_name("empty").mkdir()
    assert list(list_runs(tmp_path)) == sorted(folders)


def test_damaged_runs_are_told_beside_the_records_of_the_others(tmp_path):
    whole, damaged = (
        run_folder(tmp_path, "probe", "toy", 28, "toynet", name) for name in ("a", "b")
    )
    for folder in (whole, damaged):
        save_run(make_record(folder), PREDICTIONS)
    (damaged / "record.json").write_text("{")
    records, reasons = read_runs(tmp_path)
    assert [record.path for record in records] == [str(whole)]
    [(folder, reason)] = reasons
    assert folder == damaged
    assert "is damaged" in reason


def test_evaluations_lie_in_their_run_and_are_not_listed(tmp_path):
    folder = run_folder(tmp_path, "probe", "toy", 28, "toynet", "a")
    save_run(make_record(folder), PREDICTIONS)
    evaluation = evaluation_folder(folder, "my $(set)", 64, "0123456789abcdef")
    assert evaluation == folder / "evaluations" / "my___set_-64-01234567"
    save_run(make_record(evaluation), PREDICTIONS)
    assert list(list_runs(tmp_path)) == [folder]
    assert list(list_runs(tmp_path / "probe/toy")) == []


# --- a run that grew in a folder of its own -----------------------------------------------------


@pytest.fixture
def partial(folder):
    """The folder of a run under way, with a file that the run has written."""
    path = folder.with_name(f"{folder.name}.partial")
    path.mkdir(parents=True)
    (path / "network.safetensors").write_bytes(b"weights")
    return path


def test_a_finished_run_holds_what_it_wrote_on_its_way(folder, partial):
    finish_run(partial, make_record(folder), PREDICTIONS)
    assert sorted(p.name for p in folder.iterdir()) == [
        "network.safetensors", "predictions.npz", "record.json",
    ]  # fmt: skip
    assert (folder / "network.safetensors").read_bytes() == b"weights"
    assert read_record(folder) == make_record(folder)
    np.testing.assert_array_equal(read_predictions(folder)["val_score"], PREDICTIONS["val_score"])
    assert list(folder.parent.iterdir()) == [folder]


def test_folders_in_a_run_under_way_stay_in_it(folder, partial):
    (partial / "tracker/events").mkdir(parents=True)
    finish_run(partial, make_record(folder), PREDICTIONS)
    assert (folder / "tracker/events").is_dir()


def test_a_finished_run_replaces_an_older_one_and_all_its_files(folder, partial):
    save_run(make_record(folder, acc=0.1), PREDICTIONS, HEAD)
    finish_run(partial, make_record(folder, acc=0.9), PREDICTIONS)
    assert read_record(folder).metrics["val"]["acc"] == 0.9
    assert not (folder / "head.safetensors").exists()
    assert list(folder.parent.iterdir()) == [folder]


def test_a_run_under_way_is_not_listed_even_with_its_record(folder, partial):
    finish_run(partial, make_record(folder), PREDICTIONS)
    other = folder.rename(partial)  # as if it had died before its last step
    assert (other / "record.json").exists()
    assert list(list_runs(folder.parents[4])) == []


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("stage", ["predictions", "record", "sync", "rename"])
def test_a_run_that_cannot_be_finished_keeps_what_it_wrote_and_what_was_there(
    stage, before, folder, partial, monkeypatch
):
    if before:
        save_run(make_record(folder, acc=0.1), PREDICTIONS)
    old = everything_in(folder)
    with monkeypatch.context() as patch, pytest.raises(RunError) as error:
        patch.setattr(*FAILURES[stage], full)
        finish_run(partial, make_record(folder, acc=0.9), PREDICTIONS)
    assert f"{folder} cannot be written: No space left" in str(error.value)
    assert (partial / "network.safetensors").read_bytes() == b"weights"
    assert everything_in(folder) == old

    finish_run(partial, make_record(folder, acc=0.9), PREDICTIONS)

    assert read_record(folder).metrics["val"]["acc"] == 0.9
    assert list(folder.parent.iterdir()) == [folder]


# --- failures while writing -------------------------------------------------------------------


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


FAILURES = {
    "predictions": (ledger.np, "savez"),
    "record": (os, "write"),
    "sync": (os, "fsync"),
    "rename": (Path, "rename"),
}


@pytest.mark.parametrize("stage", FAILURES)
def test_a_run_that_cannot_be_written_leaves_nothing(stage, folder, monkeypatch):
    monkeypatch.setattr(*FAILURES[stage], full)
    with pytest.raises(RunError, match=f"{folder} cannot be written: No space left.*--runs"):
        save_run(make_record(folder), PREDICTIONS, HEAD)
    assert list(folder.parent.iterdir()) == []
    assert find_run(folder) is None


@pytest.mark.parametrize("stage", FAILURES)
def test_a_run_that_cannot_be_replaced_is_kept(stage, folder, monkeypatch):
    save_run(make_record(folder), PREDICTIONS, HEAD)
    before = everything_in(folder)
    with monkeypatch.context() as patch, pytest.raises(RunError):
        patch.setattr(*FAILURES[stage], full)
        save_run(make_record(folder, acc=0.9), PREDICTIONS, HEAD)
    assert everything_in(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


# --- damage -----------------------------------------------------------------------------------


def test_a_missing_run_is_named(folder):
    with pytest.raises(RunError, match=f"no run at {folder}"):
        read_record(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"7", b"{}", b"null"])
def test_a_damaged_record_is_refused_with_a_remedy(content, folder):
    save_run(make_record(folder), PREDICTIONS)
    (folder / "record.json").write_bytes(content)
    for read in (read_record, find_run):
        with pytest.raises(RunError, match=rf"record\.json is damaged; delete {folder}"):
            read(folder)


def edit(folder, **changes):
    file = folder / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_record_of_another_schema_is_refused(folder):
    save_run(make_record(folder), PREDICTIONS)
    edit(folder, schema_version=1)
    with pytest.raises(RunError, match=r"has schema 1, this medplus reads 2; delete"):
        read_record(folder)


@pytest.mark.parametrize("change", [{"size": "big"}, {"protocol": "x"}, {"unheard_of": 1}])
def test_an_invalid_field_is_named(change, folder):
    save_run(make_record(folder), PREDICTIONS)
    edit(folder, **change)
    with pytest.raises(RunError, match=f"'{next(iter(change))}' is invalid"):
        read_record(folder)


@pytest.mark.parametrize("length", [0, 1, 50, -1])
def test_damaged_predictions_are_refused(length, folder):
    save_run(make_record(folder), PREDICTIONS)
    file = folder / "predictions.npz"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(RunError, match=r"predictions\.npz is missing or damaged"):
        read_predictions(folder)
