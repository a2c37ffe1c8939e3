"""`medplus report`: what it writes and prints, what it refuses, and how it ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.results.cells import KEYS
from medplus.reporting import build
from tests.analysis.ledgers import accuracy, predict, write_record

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, fast_disk: None) -> None:
    """Leave out the figures and the page, which take most of the time."""
    monkeypatch.setattr(build, "write_figures", lambda figures, folder: [])
    monkeypatch.setattr(build, "render_page", lambda document, *_: document.benchmark.title)


def strict_json(text: str) -> Any:
    """Read JSON as everyone else does: NaN and Infinity are none."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def paper_acc(backbone: str, protocol: str = "knn") -> float:
    """Return the paper's ACC on BreastMNIST at 28 px, as a fraction."""
    cells = load_baseline().set_index(KEYS)["acc_mean"]
    return float(cells["breastmnist", protocol, backbone, 28]) / 100


def refusal(cli: Cli, *arguments: object, code: int = 2) -> str:
    ran = cli("report", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err
    return str(ran.err)


@pytest.mark.parametrize("flags", [[], ["--baseline", "paper"]])
def test_the_paper_is_what_is_reported_without_runs(
    flags: list[str], cli: Cli, tmp_path: Path
) -> None:
    ran = cli("report", *flags, "--out", "out", "--json")
    document = strict_json(ran.out)

    assert ran.code == 0
    assert document["cells"] == 1440
    assert {str(Path(path).relative_to(tmp_path)) for path in document["files"]} >= {
        "out/index.html", "out/tables/benchmark.csv"
    }  # fmt: skip
    assert len(read_table(tmp_path / "out" / "tables" / "benchmark.csv")) == 1440 + 120


def test_that_no_runs_were_named_is_said(cli: Cli) -> None:
    told = "The paper's benchmark as published; for runs of yours, name their folder."
    assert cli("report", "--out", "out").out.startswith(told)


def test_runs_of_one_seed(cli: Cli, tmp_path: Path) -> None:
    write_record(tmp_path / "runs", acc=0.8125, auc=None)
    ran = cli("report", "runs", "--out", "out", "--json")
    row, average = read_table(tmp_path / "out" / "tables" / "benchmark.csv")

    assert ran.code == 0
    document = strict_json(ran.out)
    assert document["cells"] == 1
    assert document["left_out"] == 0
    assert "against" not in document
    assert row == {
        "dataset": "breastmnist", "protocol": "probe", "backbone": "resnet18", "size": "28",
        "acc_mean": "81.25", "acc_std": "", "auc_mean": "", "auc_std": "", "n_seeds": "1",
        "weights": "imagenet", "fit": "pad", "feature": "prelogits", "lora": "",
    }  # fmt: skip
    assert average == {**row, "dataset": "average"}


def test_real_heads(cli: Cli, tmp_path: Path, write_store: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    labels = [np.arange(n) % 3 for n in (30, 12, 18)]
    for backbone, noise in (("one", 0.1), ("two", 1.5)):
        embeddings = [np.eye(3)[y] + rng.normal(0, noise, (len(y), 3)) for y in labels]
        write_store(
            [one.astype(np.float32) for one in embeddings], labels, backbone=backbone,
            root=tmp_path / "embeddings",
        )  # fmt: skip
    common = ("--dataset", "toy", "--backbone", "one,two", "--size", 28)
    assert cli("knn", *common, "--k", "3").code == 0
    probed = cli("probe", *common, "--seed", "1,2", "--epochs", 2, "--lr", 0.01, "--json")
    ran = cli("report", "runs", "--out", "out", "--json")
    rows = read_table(tmp_path / "out" / "tables" / "benchmark.csv")

    assert ran.code == 0
    records = probed.document["runs"]
    for row in rows:
        if row["protocol"] != "probe" or row["dataset"] == "average":
            continue
        own = [
            100 * r["metrics"]["test"]["acc"] for r in records if r["backbone"] == row["backbone"]
        ]
        assert float(row["acc_mean"]) == pytest.approx(np.mean(own), abs=0.0051)
        assert float(row["acc_std"]) == pytest.approx(np.std(own, ddof=1), abs=0.0051)
        assert row["n_seeds"] == "2"
    assert {row["protocol"] for row in rows} == {"knn", "probe"}
    paired = read_table(tmp_path / "out" / "tables" / "paired.csv")
    (best,) = (row["best"] for row in paired if row["protocol"] == "knn")
    assert best == "one"
    costs = read_table(tmp_path / "out" / "tables" / "costs.csv")
    assert all(float(row["device_seconds"]) >= 1 for row in costs)  # extraction included


def test_conditions_are_chosen(cli: Cli, tmp_path: Path) -> None:
    for dataset, k, acc in (("a", 11, 0.5), ("b", 11, 0.6), ("b", 5, 0.7)):
        write_record(tmp_path / "runs", "knn", dataset, acc=acc, k=k)
    ran = cli("report", "runs", "--out", "out", "--tuned", "fixed", "--json")
    (left,) = read_table(tmp_path / "out" / "tables" / "unlike.csv")

    assert ran.document["left_out"] == 1
    assert (left["reason"], left["acc_mean"]) == ("k 5, not 11", "70.00")
    ran = cli("report", "runs", "--out", "out", "--tuned", "fixed", "--only", "k=5", "--json")
    assert (ran.document["cells"], ran.document["left_out"]) == (1, 0)
    assert "k 5" in ran.document["conditions"]["knn"]
    assert not (tmp_path / "out" / "tables" / "unlike.csv").exists()


def test_tuned_on_val(cli: Cli, tmp_path: Path) -> None:
    for k, val, acc in ((11, 0.6, 0.9), (5, 0.8, 0.5)):
        write_record(tmp_path / "runs", "knn", val=val, acc=acc, k=k)
    ran = cli("report", "runs", "--out", "out", "--tuned", "val", "--json")

    assert "k chosen on val" in ran.document["conditions"]["knn"]
    rows = read_table(tmp_path / "out" / "tables" / "benchmark.csv")
    assert [row["acc_mean"] for row in rows] == ["50.00", "50.00"]


def test_damaged_records_are_named(cli: Cli, tmp_path: Path) -> None:
    write_record(tmp_path / "runs", seed=1)
    path = write_record(tmp_path / "runs", seed=2).path
    (Path(path) / "record.json").write_text("{")
    ran = cli("report", "runs", "--out", "out")

    name = Path(path).name
    assert ran.code == 0
    assert "1 record could not be read" in ran.out
    assert "Skipped " in ran.err
    assert name in ran.err
    (skipped,) = cli("report", "runs", "--out", "out", "--json").document["skipped"]
    assert name in skipped["path"]
    assert "is damaged" in skipped["reason"]


class TestAgainst:
    """Runs beside the paper's numbers."""

    @pytest.mark.parametrize(
        ("by", "flags", "code"),
        [
            (0.0, [], 0),
            (-0.05, [], 0),
            (0.0, ["--strict"], 0),
            (-0.05, ["--strict"], 1),
            (-0.05, ["--strict", "--tolerance", 6], 0),
            (0.005, ["--strict", "--tolerance", 0.1], 1),
        ],
    )
    def test_strict_judges(
        self, by: float, flags: list[Any], code: int, cli: Cli, tmp_path: Path
    ) -> None:
        write_record(tmp_path / "runs", "knn", backbone="vgg16", acc=paper_acc("vgg16"))
        write_record(tmp_path / "runs", "knn", backbone="alexnet", acc=paper_acc("alexnet") + by)
        write_record(tmp_path / "runs", "knn", backbone="my_net", acc=0.01)  # has no counterpart
        ran = cli("report", "runs", "--out", "out", "--against", "paper", *flags)

        assert ran.code == code
        assert (tmp_path / "out" / "index.html").exists()
        rows = read_table(tmp_path / "out" / "tables" / "against.csv")
        assert {row["backbone"] for row in rows} == {"vgg16", "alexnet"}
        if code:
            assert "Error: --strict: 1 of 2 cells differ from the paper by more than" in ran.err
            assert f"breastmnist, knn, alexnet, 28 px ({100 * by:+.2f})" in ran.err

    @pytest.mark.parametrize("by", [0.0, 0.05])
    def test_json_is_one_document_and_holds_the_verdict(
        self, by: float, cli: Cli, tmp_path: Path
    ) -> None:
        for backbone in ("vgg16", "my_net"):
            write_record(tmp_path / "runs", "knn", backbone=backbone, acc=paper_acc("vgg16") + by)
        ran = cli("report", "runs", "--out", "o", "--against", "paper", "--strict", "--json")
        document = strict_json(ran.out)

        assert ran.code == (1 if by else 0)
        assert document["strict"]["passed"] == (not by)
        (row,) = document["against"]
        assert row["difference"] == pytest.approx(by)
        assert row["acc"] - row["paper_acc"] == pytest.approx(by)
        assert row["tolerance"] == 0.02
        assert row["within_spread"] is None
        (newcomer,) = document["newcomers"]
        assert (newcomer["backbone"], newcomer["of"], newcomer["n_datasets"]) == ("my_net", 11, 1)

    def test_nothing_to_compare_is_no_success(self, cli: Cli, tmp_path: Path) -> None:
        write_record(tmp_path / "runs", "knn", "mine")
        flags = ("report", "runs", "--out", "out", "--against", "paper")

        assert cli(*flags).code == 0
        ran = cli(*flags, "--strict")
        assert ran.code == 1
        assert "none of the runs has a counterpart" in ran.err


class TestCompare:
    """Two runs on the same test images."""

    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[str, str]:
        made = [predict(300, right, seed) for seed, right in ((1, 0.85), (2, 0.75))]
        return tuple(  # type: ignore[return-value]
            write_record(tmp_path / "runs", seed=seed, acc=accuracy(one), predictions=one).path
            for seed, one in enumerate(made)
        )

    def test_is_a_paired_bootstrap(self, cli: Cli, folders: tuple[str, str]) -> None:
        document = strict_json(cli("report", "--compare", *folders, "--json").out)
        rng = np.random.default_rng(5)
        one, two = (predict(300, right, seed) for seed, right in ((1, 0.85), (2, 0.75)))
        hits = [p["test_score"].argmax(axis=1) == p["test_true"][:, 0] for p in (one, two)]
        gap = hits[0].astype(float) - hits[1]
        drawn = gap[rng.integers(0, 300, (20_000, 300))].mean(axis=1)

        assert document["runs"] == list(folders)
        assert document["n_images"] == 300
        assert document["acc"]["difference"] == pytest.approx(gap.mean())
        np.testing.assert_allclose(
            document["acc"]["ci95"], np.quantile(drawn, [0.025, 0.975]), atol=0.007
        )
        far = 2 * min((drawn <= 0).mean(), (drawn >= 0).mean())
        assert document["acc"]["p_value"] == pytest.approx(far, abs=0.02)
        assert document["auc"]["difference"] > 0

    def test_as_a_reader_sees_it(self, cli: Cli, folders: tuple[str, str]) -> None:
        ran = cli("report", "--compare", *folders)

        assert ran.code == 0
        assert "on 300 test images" in ran.out
        assert "95 % interval" in ran.out

    @pytest.mark.parametrize(
        ("other", "says"),
        [
            (predict(299), "300 images and 299"),
            (predict(300) | {"test_index": np.arange(300) + 1}, "test_index"),
            (predict(300, truth_seed=9), "other labels"),
        ],
    )
    def test_other_test_sets_are_refused(
        self, other: Any, says: str, cli: Cli, folders: tuple[str, str], tmp_path: Path
    ) -> None:
        path = write_record(tmp_path / "runs", seed=9, predictions=other).path

        message = refusal(cli, "--compare", folders[0], path)
        assert says in message
        assert "compare runs on the same test set only" in message

    def test_other_tasks_are_refused(
        self, cli: Cli, folders: tuple[str, str], tmp_path: Path
    ) -> None:
        path = write_record(tmp_path / "runs", seed=9, task="multi-class").path

        assert "different tasks" in refusal(cli, "--compare", folders[0], path)

    def test_what_is_no_run(self, cli: Cli, folders: tuple[str, str]) -> None:
        assert "there is no run at none" in refusal(cli, "--compare", folders[0], "none", code=1)
        (Path(folders[1]) / "predictions.npz").write_bytes(b"PK")
        message = refusal(cli, "--compare", *folders, code=1)
        assert "predictions.npz is missing or damaged" in message

    @pytest.mark.parametrize(
        "flags",
        [["--out", "o"], ["runs"], ["--strict"], ["--against", "paper"], ["--only", "k=5"],
         ["--tuned", "val"], ["--title", "x"], ["--tolerance", 1], ["--baseline", "paper"]],
    )  # fmt: skip
    def test_flags_of_a_report_are_refused(self, flags: list[Any], cli: Cli) -> None:
        message = refusal(cli, *flags, "--compare", "a", "b")
        assert f"leave out {'RUNS' if flags == ['runs'] else flags[0]}" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--out"),
        (["--out", "o", "--against", "paper"], "--against is about runs; name their folder"),
        (["--out", "o", "--only", "k=5"], "--only is about runs"),
        (["--out", "o", "--title", "x"], "--title is about runs"),
        (["--out", "o", "--strict"], "add --against paper"),
        (["runs", "--out", "o", "--strict"], "--strict judges runs by others' numbers; add"),
        (["runs", "--out", "o", "--tolerance", 1], "--tolerance judges runs"),
        (["runs", "--out", "o", "--against", "paper", "--tolerance", -1], "--tolerance"),
        (
            ["runs", "--out", "o", "--against", "me"],
            "--against me: say paper, or name a CSV",
        ),
        (["runs", "--out", "o", "--only", "k"], "'k' is not of the form KEY=VALUE"),
        (["runs", "--out", "o", "--only", "kk=5"], "no such condition; did you mean 'k'?"),
        (["runs", "--out", "o", "--only", "k=7"], "--only k=7: no run has it; there is 11"),
        (["runs", "more", "--out", "o"], "more"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[Any], says: str, cli: Cli, tmp_path: Path
) -> None:
    write_record(tmp_path / "runs", "knn")

    assert says in refusal(cli, *arguments)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "foreign"])
def test_a_folder_without_runs(kind: str, cli: Cli, tmp_path: Path) -> None:
    if kind != "missing":
        (tmp_path / "runs").mkdir()
    if kind == "foreign":
        (tmp_path / "runs" / "thesis.tex").write_text("mine")

    message = refusal(cli, "runs", "--out", "out", code=1)
    assert "medplus report --out DIR" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_report_folder_that_is_taken(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")

    assert "file is a file" in refusal(cli, "--out", "file", code=1)
    assert "file is a file" in refusal(cli, "--out", "file/report", code=1)
    assert "(thesis.tex); they would be lost" in refusal(cli, "--out", "thesis", code=1)
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "mine"
