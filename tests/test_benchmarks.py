"""How benchmarks judge, keep and show what they have measured."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import document, gpu, record
from benchmarks.bench_memory import write_store
from benchmarks.check import regressions
from benchmarks.measure import Result, compare, growth
from benchmarks.stores import write_rows
from medplus.datasets import catalog
from medplus.embeddings.store import open_store


def result(ratios, goal="≤ 2", name="a ÷ b"):
    return Result(name, ratios, goal, "1 s ÷ 1 s")


@pytest.mark.parametrize(
    ("ratios", "goal", "reached"),
    [
        ([1.0, 2.0, 9.0], "≤ 2", True), ([1.0, 2.1, 9.0], "≤ 2", False),
        ([4.0, 3.5, 0.1], "≥ 3.5", True), ([4.0, 3.4, 0.1], "≥ 3.5", False),
        ([1.0], "", None), ([1.0], "page < 2 s", None), ([1.0], "≥ 3 with native bf16", None),
    ],
)  # fmt: skip
def test_the_median_is_held_against_the_goal(ratios, goal, reached):
    assert result(ratios, goal).is_reached is reached


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_growth_is_the_slope_on_log_scales(power):
    sizes = (10, 100, 3_000)
    found = growth("x", {n: [7e-6 * n**power, 9e-6 * n**power] for n in sizes})

    assert found.ratios == pytest.approx([power, power])
    assert found.points == [[n, pytest.approx(8e-6 * n**power)] for n in sizes]
    assert found.is_reached is (power <= 1)


def test_ratios_are_round_by_round():
    assert compare("a ÷ b", [2.0, 9.0, 4.0], [1.0, 3.0, 4.0], "").ratios == [2.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("goal", "now", "worse"),
    [
        ("≤ 2", 2.1, False), ("≤ 2", 2.3, True), ("≤ 2", 0.1, False),
        ("≥ 2", 0.95, False), ("≥ 2", 0.8, True), ("≥ 2", 9.0, False), ("", 99.0, False),
    ],
)  # fmt: skip
def test_worse_is_beyond_the_recorded_range_in_the_sense_of_the_goal(goal, now, worse):
    found = regressions([result([now], goal)], {"a ÷ b": [1.0, 2.0]}, tolerance=0.1)
    assert bool(found) is worse
    if worse:
        assert (found[0].found, found[0].worst_recorded) == (now, 2.0 if goal[0] == "≤" else 1.0)


def test_what_was_not_recorded_is_not_judged():
    assert regressions([result([99.0], name="new")], {"a ÷ b": [1.0]}) == []


MACHINE = {
    "cpu": "AMD EPYC (2 threads)", "device": "NVIDIA H100", "native_bf16_cpu": False,
    "threads": 2, "versions": {"python": "3.11.7", "torch": "2.15.0"},
}  # fmt: skip


def test_a_benchmark_run_again_replaces_its_own_results_alone(tmp_path):
    path = tmp_path / "results" / "machine.json"
    record.write(path, MACHINE, "store", [result([1.0])])
    record.write(path, MACHINE, "knn", [result([1.0], name="old")])
    record.write(path, MACHINE, "knn", [result([1.23456], name="new")])

    kept = json.loads(path.read_text())
    assert kept["machine"] == MACHINE
    assert [r["name"] for r in kept["results"]["knn"]["ratios"]] == ["new"]
    assert kept["results"]["knn"]["ratios"][0]["ratios"] == [1.235]
    assert [r["name"] for r in kept["results"]["store"]["ratios"]] == ["a ÷ b"]


def test_machines_have_files_of_their_own():
    other = {**MACHINE, "device": MACHINE["cpu"]}
    assert record.results_file(MACHINE).name == "amd-epyc-2-threads-nvidia-h100.json"
    assert record.results_file(other).name == "amd-epyc-2-threads.json"


def test_the_page_shows_what_is_kept_and_keeps_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(document, "DOCS", tmp_path)
    monkeypatch.setattr(document, "PAGE", tmp_path / "page.md")
    text = f"# Words\n\n{document.BEGIN}\nold\n{document.END}\n\nmore words\n"
    (tmp_path / "page.md").write_text(text)
    path = record.FOLDER / "machine.json"
    results = [
        result([1.0, 1.5]),
        result([3.0], "≥ 4", "c ÷ d"),
        result([7.0], "", "e ÷ f"),
        growth("g", {1: [1.0], 9: [9.0]}),
    ]
    record.write(path, MACHINE, "knn", results)

    document.write_page()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    document.write_page()  # a second time changes nothing
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Words\n\n") and page.endswith("\n\nmore words\n")
    assert "old" not in page
    assert "| a ÷ b | 1.25 | 1–1.5 | ≤ 2 | yes |" in page
    assert "| c ÷ d | 3 | 3–3 | ≥ 4 | **no** |" in page
    assert "| e ÷ f | 7 | 7–7 |  |  |" in page
    assert page.count("torch 2.15.0") == 1
    for figure in ("machine.svg", "machine-growth.svg"):
        assert (tmp_path / "performance" / figure).read_text().startswith("<?xml")
        assert f"(performance/{figure})" in page


def test_a_part_that_fails_or_hangs_does_not_stop_the_next_on_a_gpu(capfd):
    def part(name, code, limit_s=20.0):
        return gpu.Part(name, [sys.executable, "-c", code], limit_s)

    hangs = part("hangs", "import time; time.sleep(60)", 0.5)
    ended = gpu.run_parts([part("fails", "raise SystemExit(3)"), hangs, part("works", "")])
    assert [(name, how) for name, how, _ in ended] == [
        ("fails", "failed (3)"), ("hangs", "stopped at its limit"), ("works", "done"),
    ]  # fmt: skip


def test_the_hours_of_the_paper_are_all_its_images_at_the_fastest_rates():
    rates = [
        {"backbone": "resnet18", "size": size, "precision": precision, "images_per_second": rate}
        for size, precision, rate in [(28, "fp32", 1e3), (28, "bf16", 4e3), (224, "bf16", 2e3)]
    ]
    images = sum(sum(catalog.info(flag).n_samples.values()) for flag in catalog.FLAGS)
    expected = images / 4e3 + 3 * images / 2e3  # 64 and 128 px as slow as 224
    assert gpu.hours_of_the_paper(rates) == {"resnet18": pytest.approx(expected / 3600)}


def test_stores_that_benchmarks_write_are_stores(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_rows(tmp_path / "rows.zarr", rows)
    assert np.array_equal(open_store(tmp_path / "rows.zarr").embeddings("train"), rows)
    assert open_store(write_store(tmp_path, 20)).info.n_samples["train"] == 20
