"""Who may make a run, what killed writers leave of it, and heads that no damage passes through."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from medplus import lock
from medplus.errors import RunError
from medplus.run import ledger
from medplus.run.ledger import (
    adopt_run,
    claim_runs,
    finish_run,
    hold_run,
    read_head,
    read_predictions,
    read_record,
    save_run,
    tidy_run,
    tidy_runs,
)
from tests.run.test_ledger import HEAD, PREDICTIONS, make_record


@pytest.fixture
def folder(tmp_path):
    return ledger.run_folder(tmp_path, "probe", "toy", 28, "toynet", "name-00000000")


def lock_of(folder):
    return folder.with_name(f".{folder.name}.lock")


def leave_remains(folder):
    """Leave what a writer leaves that is killed: its lock and its temporary folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock_of(folder).write_text("{}")
    remains = folder.with_name(f".{folder.name}.tmp-1-0123abcd")
    remains.mkdir()
    (remains / "record.json").touch()


def test_claimed_runs_are_held_and_then_free(folder):
    other = folder.with_name("other-00000000")
    with claim_runs([folder, other, folder]):
        assert lock.owner(lock_of(folder)) and lock.owner(lock_of(other))
    assert not any(parent.exists() for parent in folder.parents[:3])  # as it was before


def test_a_second_claim_waits_for_the_first(folder):
    order = []

    def second():
        with claim_runs([folder]):
            order.append("second")

    with claim_runs([folder]):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_claim_removes_what_killed_writers_left(folder):
    leave_remains(folder)
    with claim_runs([folder]):
        assert list(folder.parent.iterdir()) == [lock_of(folder)]
    assert list(folder.parent.iterdir()) == []


def test_a_claim_under_a_file_is_refused(tmp_path):
    (tmp_path / "probe").touch()
    with pytest.raises(RunError, match="cannot be written"), claim_runs([tmp_path / "probe/a/b"]):
        pass


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_finished_runs_stale_lock_and_remains_go(all_of_them, folder, tmp_path):
    save_run(make_record(folder), PREDICTIONS)
    leave_remains(folder)
    tidy_runs(tmp_path) if all_of_them else tidy_run(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_tidying_leaves_a_run_that_is_held(folder, tmp_path):
    folder.parent.mkdir(parents=True)
    with hold_run(folder):
        leave = folder.with_name(f".{folder.name}.tmp-1-0123abcd")
        leave.mkdir()
        tidy_runs(tmp_path)
        assert leave.exists() and lock.owner(lock_of(folder))


# --- a run whose writer died just before the end ------------------------------------------------


@pytest.fixture
def partial(folder):
    path = folder.with_name(f"{folder.name}.partial")
    path.mkdir(parents=True)
    (path / "last.safetensors").write_bytes(b"state")
    return path


def test_a_run_with_its_record_only_takes_its_name(folder, partial):
    finish_run(partial, make_record(folder), PREDICTIONS)
    folder.rename(partial)
    assert adopt_run(partial, folder, "last.safetensors") == make_record(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["predictions.npz", "record.json"]
    assert list(folder.parent.iterdir()) == [folder]


def test_what_a_finished_run_does_not_keep_goes_before_it_takes_its_name(
    folder, partial, monkeypatch
):
    monkeypatch.setattr(ledger.atomic, "sync", lambda path: (_ for _ in ()).throw(OSError(5, "x")))
    with pytest.raises(RunError):
        finish_run(partial, make_record(folder), PREDICTIONS, "last.safetensors")
    assert not (partial / "last.safetensors").exists() and (partial / "record.json").exists()


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_run_without_a_whole_record_is_not_adopted(content, folder, partial):
    if content is not None:
        (partial / "record.json").write_bytes(content)
    assert adopt_run(partial, folder) is None
    assert partial.exists() and not folder.exists()


# --- sealed records and heads -------------------------------------------------------------------


def test_a_changed_number_in_a_record_is_refused(folder):
    save_run(make_record(folder, acc=0.5), PREDICTIONS)
    file = folder / "record.json"
    file.write_text(file.read_text().replace("0.5", "0.6", 1))
    with pytest.raises(RunError, match=r"record\.json is damaged.*delete"):
        read_record(folder)


@pytest.mark.parametrize("lost", ["seal", "files"])
def test_a_record_that_lost_a_part_is_refused(lost, folder):
    save_run(make_record(folder), PREDICTIONS)
    document = json.loads((folder / "record.json").read_text())
    del document[lost]
    (folder / "record.json").write_text(json.dumps(document))
    for read in (read_record, read_predictions):
        with pytest.raises(RunError, match=r"record\.json is damaged"):
            read(folder)


def test_predictions_of_another_run_are_refused(folder):
    other = folder.with_name("other-00000000")
    save_run(make_record(folder), PREDICTIONS)
    save_run(make_record(other), {**PREDICTIONS, "val_score": 1 - PREDICTIONS["val_score"]})
    (other / "predictions.npz").replace(folder / "predictions.npz")
    with pytest.raises(RunError, match=r"predictions\.npz is missing or damaged"):
        read_predictions(folder)


def test_a_head_is_read_back(folder):
    save_run(make_record(folder), PREDICTIONS, HEAD)
    found = read_head(folder)
    assert found.keys() == HEAD.keys()
    for name, values in HEAD.items():
        np.testing.assert_array_equal(found[name].numpy(), values)


def test_a_changed_weight_is_refused(folder):
    save_run(make_record(folder), PREDICTIONS, HEAD)
    file = folder / "head.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"head\.safetensors is damaged; .*--overwrite"):
        read_head(folder)
