"""The report: the paper's, the reading of a whole grid's records, and the page in a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare, interleave
from medplus.analysis.results.runs import read_runs
from medplus.backbones.catalog import PAPER
from medplus.datasets.catalog import FLAGS
from medplus.run.record import RunRecord
from medplus.seal import seal
from medplus.spec import ExtractSpec
from medplus.vocabulary import PAPER_SEEDS, SIZES

ROUNDS = 3


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return [*_paper(Path(folder)), *_reading(Path(folder))]


def _paper(folder: Path) -> list[Result]:
    """Compare the whole command with the import of what it draws with; then open its page."""
    out = folder / "paper"

    def command(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    times = interleave(
        {
            "report": lambda: command("-m", "medplus", "report", "--out", str(out)),
            "imports": lambda: command("-c", "import pandas, matplotlib.figure, scipy.stats"),
        },
        ROUNDS,
    )
    size = (out / "index.html").stat().st_size
    results = [
        compare(
            f"medplus report on the paper, page of {size / 1e6:.1f} MB ÷ importing pandas, "
            "matplotlib, scipy",
            times["report"], times["imports"], "report ≤ 6 s, page < 8 MB",
        )
    ]  # fmt: skip
    return results + _browser(out / "index.html")


def _browser(page: Path) -> list[Result]:
    """Compare the time until the page answers with that of an empty page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return []
    from playwright.sync_api import sync_playwright

    blank = page.with_name("blank.html")
    blank.write_text("<!doctype html><title>blank</title>")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def load(path: Path) -> None:
            tab = browser.new_page()
            tab.goto(path.as_uri(), wait_until="load")
            tab.evaluate("new Promise(done => requestIdleCallback(done))")
            tab.close()

        ways = {"page": lambda: load(page), "blank": lambda: load(blank)}
        times = interleave(ways, ROUNDS)
        browser.close()
    return [
        compare("the paper's page, loaded and idle ÷ an empty page", times["page"],
                times["blank"], "page < 2 s")
    ]  # fmt: skip


def _reading(folder: Path) -> list[Result]:
    """Compare reading a grid's records with `json.loads` of the same files."""
    root = folder / "runs"
    paths = _write_records(root)
    times = interleave(
        {
            "read": lambda: read_runs(root),
            "json": lambda: [json.loads(path.read_bytes()) for path in paths],
        },
        ROUNDS,
    )
    return [
        compare(f"read {len(paths):,} records into a table ÷ json.loads of their files",
                times["read"], times["json"], "read < 3 s")
    ]  # fmt: skip


def _write_records(root: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for dataset, size, backbone in product(FLAGS, SIZES, PAPER):
        runs = [("knn", {"k": k}) for k in (1, 5, 11)]
        runs += [(name, {"seed": s}) for name in ("probe", "finetune") for s in PAPER_SEEDS]
        for protocol, own in runs:
            folder = (
                root / protocol / dataset / str(size) / backbone / "-".join(map(str, own.values()))
            )
            folder.mkdir(parents=True)
            acc = float(rng.uniform(0.3, 0.95))
            scores = {"acc": acc, "auc": acc, "acc_ci95": [acc - 0.02, acc + 0.02], "n": 1000}
            record = RunRecord(
                spec=ExtractSpec(dataset, size, backbone, "pretrained", "pad", "prelogits", "fp32"),
                run_id=folder.name, path=str(folder), protocol=protocol, dataset=dataset, size=size,
                backbone=backbone, tag=backbone, task="multi-class", classes=list("abcdefgh"),
                data_source="official", licence="CC BY 4.0", weights="pretrained",
                dataset_digest="", weights_sha256="", backbone_digest="",
                metrics={"val": scores, "test": scores}, seconds=1.0,
                cost={"seconds": 1.0, "device_seconds": 1.0}, environment={},
                config={"protocol": protocol, **own}, created="2026-01-01T00:00:00Z", **own,
            )  # fmt: skip
            paths.append(folder / "record.json")
            paths[-1].write_text(json.dumps(seal(record.to_dict())))
    return paths
