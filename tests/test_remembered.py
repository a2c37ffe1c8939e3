"""What was found out earlier saves time, and nothing else: whatever its file holds, all goes on."""

from __future__ import annotations

import json

import pytest

from medplus.remembered import recall, remember

ENTRY = {"batch_size": 16, "images_per_second": 120.5}
SUBJECT = "speeds"


def test_entries_are_kept_per_key_and_the_latest_counts(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert recall(SUBJECT, "a", folder) is None
    remember(SUBJECT, "a", {"batch_size": 8}, folder)
    remember(SUBJECT, "b", ENTRY, folder)
    remember(SUBJECT, "a", {"batch_size": 32}, folder)
    assert recall(SUBJECT, "a", folder) == {"batch_size": 32}
    assert recall(SUBJECT, "b", folder) == ENTRY
    assert recall("another", "b", folder) is None
    assert [path.name for path in folder.iterdir()] == ["speeds.json"]


def test_they_lie_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "mine"))
    remember(SUBJECT, "a", ENTRY)
    assert recall(SUBJECT, "a") == recall(SUBJECT, "a", tmp_path / "mine") == ENTRY


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"a": 3}', '{"a": {}}', '{"a": {"batch_size": 16}}', "[" * 100_000],
)
def test_what_is_damaged_is_found_out_anew(content, tmp_path):
    (tmp_path / "speeds.json").write_text(content)
    assert recall(SUBJECT, "a", tmp_path) is None
    remember(SUBJECT, "a", ENTRY, tmp_path)
    assert recall(SUBJECT, "a", tmp_path) == ENTRY


def test_a_number_that_was_changed_is_not_believed(tmp_path):
    remember(SUBJECT, "a", ENTRY, tmp_path)
    file = tmp_path / "speeds.json"
    file.write_text(file.read_text().replace("120.5", "920.5"))
    assert recall(SUBJECT, "a", tmp_path) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    remember(SUBJECT, "a", ENTRY, tmp_path / "file")
    assert recall(SUBJECT, "a", tmp_path / "file") is None
    (tmp_path / "speeds.json").mkdir()
    remember(SUBJECT, "a", ENTRY, tmp_path)
    assert recall(SUBJECT, "a", tmp_path) is None


def test_the_file_does_not_grow_for_ever(tmp_path):
    many = {f"old {i}": ENTRY for i in range(2000)}
    (tmp_path / "speeds.json").write_text(json.dumps(many))
    remember(SUBJECT, "new", ENTRY, tmp_path)
    assert recall(SUBJECT, "new", tmp_path) == ENTRY
    assert len(json.loads((tmp_path / "speeds.json").read_text())) <= 1000
