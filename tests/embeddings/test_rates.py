"""What was measured earlier saves time, and nothing else: whatever its file holds, all goes on."""

from __future__ import annotations

import json

import pytest

from medplus.embeddings.rates import Rate, keep_rate, kept_rate

RATE = Rate(16, 120.5, 150.25, 30.0)


def test_rates_are_kept_per_key_and_the_latest_counts(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert kept_rate("a", folder) is None
    keep_rate("a", Rate(8, 100.0), folder)
    keep_rate("b", RATE, folder)
    keep_rate("a", Rate(32, 110.0), folder)
    assert kept_rate("a", folder) == Rate(32, 110.0)
    assert kept_rate("b", folder) == RATE
    assert [path.name for path in folder.iterdir()] == ["extraction-rates.json"]


def test_they_lie_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "mine"))
    keep_rate("a", RATE)
    assert kept_rate("a") == kept_rate("a", tmp_path / "mine") == RATE


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "3", '{"a": 3}', '{"a": {}}', '{"a": {"batch_size": 0}}',
        '{"a": {"batch_size": 16}}', '{"a": {"batch_size": 1e300, "images_per_second": 1}}',
        '{"a": {"batch_size": 16, "images_per_second": -1}}',
        '{"a": {"batch_size": 16, "images_per_second": NaN}}',
        '{"a": {"batch_size": 16, "images_per_second": 9, "compiled": "fast"}}',
        '{"a": {"batch_size": 16, "images_per_second": 9, "compile_seconds": 0}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_measured_anew(content, tmp_path):
    (tmp_path / "extraction-rates.json").write_text(content)
    assert kept_rate("a", tmp_path) is None
    keep_rate("a", RATE, tmp_path)
    assert kept_rate("a", tmp_path) == RATE


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    keep_rate("a", RATE, tmp_path / "file")
    assert kept_rate("a", tmp_path / "file") is None
    (tmp_path / "extraction-rates.json").mkdir()
    keep_rate("a", RATE, tmp_path)
    assert kept_rate("a", tmp_path) is None


def test_the_file_does_not_grow_for_ever(tmp_path):
    many = {f"old {i}": {"batch_size": 8, "images_per_second": 1.0} for i in range(2000)}
    (tmp_path / "extraction-rates.json").write_text(json.dumps(many))
    keep_rate("new", RATE, tmp_path)
    assert kept_rate("new", tmp_path) == RATE
    assert len(json.loads((tmp_path / "extraction-rates.json").read_text())) <= 1000
