"""Findings are computed: other data, another sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medplus.analysis.accuracy import best_averages
from medplus.analysis.costs import near_the_best
from medplus.analysis.document import Document
from medplus.analysis.document import analyse as analyse_all
from medplus.analysis.gains import resolution, resolution_gains
from medplus.analysis.load import benchmark_of
from medplus.analysis.pairwise import of_independent_data
from medplus.analysis.protocols import protocol_gaps
from medplus.analysis.ranking import tied_firsts, top_ranks, winners
from medplus.analysis.results.averages import dataset_means, with_averages
from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.results.cells import COLUMNS
from medplus.analysis.results.reference import load_reference
from medplus.analysis.results.runs import read_runs
from medplus.analysis.transfer import default_transfers, predictions
from tests.analysis.benchmarks import document_of
from tests.analysis.ledgers import accuracy, make_record, predict, write_record

Rows = dict[tuple[str, str, str, int], float]


def cells(acc: Rows) -> pd.DataFrame:
    """Return cells from {(dataset, protocol, backbone, size): ACC}."""
    rows = [(*key, score, 1.0, float("nan"), float("nan"), 3) for key, score in acc.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def analyse(root: Path, **settings: Any) -> Document:
    return analyse_all(benchmark_of(read_runs(root), "here", **settings))


def test_best_average_follows_the_data() -> None:
    acc = {(d, "probe", b, 28): 70.0 for d in "xy" for b in ("vgg16", "resnet18")}
    acc["x", "probe", "vgg16", 28] = 72.0
    (first,) = best_averages(with_averages(cells(acc)))
    acc["y", "probe", "resnet18", 28] = 75.0
    (second,) = best_averages(with_averages(cells(acc)))

    assert first.startswith("Linear probe: VGG16 at 28 px")
    assert first.endswith("over 2 datasets, 71.00 %.")
    assert second.startswith("Linear probe: ResNet-18 at 28 px")
    assert second.endswith("over 2 datasets, 72.50 %.")


def test_best_average_is_of_the_datasets_that_it_is_over() -> None:
    """The mean over one easy dataset is no rival of that over two."""
    acc = {("easy", "knn", "vgg16", 64): 99.0, ("a", "probe", "vgg16", 28): 50.0}
    acc |= {("easy", "knn", "vgg16", 28): 90.0, ("hard", "knn", "vgg16", 28): 50.0}
    probe, knn = best_averages(with_averages(cells(acc)))

    assert "VGG16 at 28 px has the highest mean ACC over 2 datasets, 70.00 %" in knn
    assert "on a, 50.00 %" in probe


def test_gap_between_protocols_counts_what_both_have() -> None:
    acc = {
        ("x", "finetune", "vgg16", 28): 80.0, ("x", "probe", "vgg16", 28): 70.0,
        ("y", "finetune", "vgg16", 28): 60.0, ("y", "probe", "vgg16", 28): 66.0,
        ("z", "probe", "vgg16", 28): 1.0,
    }  # fmt: skip
    (above,) = protocol_gaps(cells(acc))
    acc["x", "finetune", "vgg16", 28] = 70.0
    (below,) = protocol_gaps(cells(acc))

    assert "2.0 points above" in above
    assert "better in 1 of 2" in above
    assert "3.0 points below" in below
    assert "better in 0 of 2" in below


def test_resolution_counts_improvements() -> None:
    acc = {(d, "probe", "vgg16", s): float(s) for d in "xyz" for s in (28, 64)}
    acc["z", "probe", "vgg16", 64] = 1.0
    (told,) = resolution(resolution_gains(cells(acc)))

    assert "28 to 64 px 2 of 3 (67 %)" in told
    assert not list(resolution(resolution_gains(cells({("x", "knn", "a", 28): 1.0}))))


def test_winners_and_ties_among_them() -> None:
    acc = {(d, "probe", b, 28): 50.0 for d in "wxyz" for b in ("vgg16", "resnet18")}
    for dataset in "xyz":
        acc[dataset, "probe", "resnet18", 28] = 60.0

    def told() -> list[str]:
        table = cells(acc)
        return list(winners(top_ranks(table), tied_firsts(table)))

    tied = "; 1 have several firsts, of which one is counted."
    assert told() == ["ResNet-18 is first most often: in 3 of 4 settings" + tied]
    acc["x", "probe", "vgg16", 28] = 70.0
    assert told() == ["VGG16 and ResNet-18 are first most often: in 2 of 4 settings each" + tied]
    acc["w", "probe", "resnet18", 28] = 60.0
    assert told() == ["ResNet-18 is first most often: in 3 of 4 settings."]


def test_significance_counts_pairs() -> None:
    acc = {
        (f"d{d:02}", "probe", b, 28): 50.0 + d + 3 * n + (d * 7 % 5) / 10 * n
        for d in range(12)
        for n, b in enumerate(("vgg16", "resnet18"))
    }
    told = " ".join(document_of(cells(acc)).findings)
    assert "Of 1 pair of backbones, 1 differ significantly" in told
    few = {key: score for key, score in acc.items() if key[0] < "d05"}
    assert "differ significantly" not in " ".join(document_of(cells(few)).findings)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(80.0, 100.0), (79.5, 10.0), (60.0, 1.0)], "for 10 % of its device time"),
        ([(80.0, 100.0), (79.5, 90.0)], "for 90 % of its device time"),
        ([(80.0, 1000.0), (79.5, 0.5)], "for 0.05 % of its device time"),
        ([(80.0, 100.0), (78.5, 10.0)], "Nothing cheaper comes within 1 point"),
        ([(80.0, 100.0), (80.0, 200.0)], "the best: kNN of net0"),
    ],
)
def test_cheapest_that_is_nearly_the_best(rows: list[tuple[float, float]], says: str) -> None:
    front = pd.DataFrame(
        [("knn", f"net{n}", 28, *row, 1, True) for n, row in enumerate(rows)],
        columns=["protocol", "backbone", "size", "acc", "device_seconds", "n_datasets", "front"],
    )
    (told,) = near_the_best(front, len(front))

    assert says in told
    assert "net0" in told
    assert not list(near_the_best(front.iloc[:1], 1))
    (told,) = near_the_best(front, len(front) + 2)
    part = f"Of the {len(front)} of {len(front) + 2} settings whose cost was measured: "
    assert told.startswith(part)


def test_datasets_of_the_same_patients_are_also_tested_as_one() -> None:
    means = dataset_means(load_baseline())
    (told,) = of_independent_data(means)

    assert told.startswith("organamnist, organcmnist and organsmnist show the same patients")
    assert "n = 10" in told
    assert "0 of 45 pairs differ after Bonferroni's correction, 0 after Holm's (none can" in told
    assert not list(of_independent_data(means.drop(index=["organamnist", "organsmnist"])))


def test_cheap_that_does_not_predict_is_said_with_what_it_costs() -> None:
    told = list(predictions(default_transfers(load_baseline())))

    assert "kNN at 28 px does not predict the order of 10 backbones" in told[0]
    assert "Trusting it costs 4.2 points of ACC on average, choosing at random 2.9." in told[0]
    assert "scored on the same test images, as no val scores are known" in told[0]


@pytest.mark.usefixtures("fast_disk")
class TestRuns:
    """Notes and findings of a small folder of runs."""

    def test_one_run_only(self, tmp_path: Path) -> None:
        write_record(tmp_path)
        found = analyse(tmp_path)

        assert set(found.tables) == {"benchmark", "datasets"}
        assert not found.figures
        assert any("1 of 1 cells of trained protocols are of one seed" in n for _, n in found.notes)
        assert found.findings == (
            "Linear probe: ResNet-18 at 28 px has the highest mean ACC on breastmnist, 80.00 % "
            "(AUC 90.00 %).",
        )

    def test_no_test_over_datasets_with_fewer_than_it_needs(self, tmp_path: Path) -> None:
        for seed, backbone in enumerate(("resnet18", "vgg16", "alexnet")):
            for dataset in ("a", "b"):
                write_record(tmp_path, "knn", dataset, backbone, acc=0.5 + seed / 10)
        found = {section.name for section in analyse(tmp_path).sections}

        assert {"pairwise", "friedman", "ranking", "spread"}.isdisjoint(found)

    def test_missing_cells_are_counted(self, tmp_path: Path) -> None:
        for dataset, backbone in (("a", "vgg16"), ("a", "resnet18"), ("b", "vgg16")):
            write_record(tmp_path, "knn", dataset, backbone)
        write_record(tmp_path, dataset="a", backbone="vgg16")

        notes = [text for _, text in analyse(tmp_path).notes]
        assert any(text.startswith("4 of 8 cells of the grid have no runs") for text in notes)
        assert any(text.endswith("compared with others: linear probe 28 px (1).") for text in notes)

    def test_what_is_left_out_is_told(self, tmp_path: Path) -> None:
        write_record(tmp_path, dataset="a")
        write_record(tmp_path, dataset="b")
        write_record(tmp_path, dataset="b", precision="bf16")
        (Path(write_record(tmp_path, dataset="c").path) / "record.json").write_text("{")
        found = analyse(tmp_path)

        texts = dict(found.notes)
        assert texts["unlike"].startswith("1 cell made under other conditions")
        assert "1 record could not be read: left out." in texts["accuracy"]
        assert len(found.benchmark.skipped) == 1

    def test_costs_of_different_devices_carry_a_warning(self, tmp_path: Path) -> None:
        for size, device in ((28, "cpu"), (64, "NVIDIA H100")):
            cost = {"device": device, "device_seconds": 2.0}
            write_record(tmp_path, "finetune", size=size, cost=cost)
        notes = [text for where, text in analyse(tmp_path).notes if where == "costs"]

        assert any("different devices (NVIDIA H100, cpu)" in text for text in notes)

    def test_best_against_second_is_of_the_means_over_seeds(self, tmp_path: Path) -> None:
        acc: dict[str, list[float]] = {"vgg16": [], "resnet18": []}
        for backbone, seed, right in (
            ("vgg16", 1, 0.8), ("vgg16", 2, 0.6), ("resnet18", 1, 0.7), ("resnet18", 2, 0.95),
        ):  # fmt: skip
            made = predict(200, right, seed=int(100 * right))
            acc[backbone].append(accuracy(made))
            write_record(
                tmp_path, "probe", "toy", backbone, seed=seed, val=right, acc=accuracy(made),
                predictions=made,
            )  # fmt: skip
        (row,) = analyse(tmp_path).tables["paired"].frame.to_dict("records")

        assert (row["best"], row["second"], row["seeds"]) == ("resnet18", "vgg16", "1; 2")
        difference = sum(acc["resnet18"]) / 2 - sum(acc["vgg16"]) / 2
        assert row["acc_difference"] == pytest.approx(100 * difference)
        assert 0 < row["low"] < row["acc_difference"] < row["high"]
        assert (row["n_images"], row["p_holm"]) == (200, row["p_value"])

    def test_best_and_second_are_chosen_on_val(self, tmp_path: Path) -> None:
        for backbone, val, right in (("vgg16", 0.9, 0.5), ("resnet18", 0.8, 0.9), ("a", 0.7, 0.99)):
            made = predict(200, right, seed=int(100 * right))
            write_record(
                tmp_path, "probe", "toy", backbone, val=val, acc=accuracy(made), predictions=made
            )
        (row,) = analyse(tmp_path).tables["paired"].frame.to_dict("records")

        assert (row["best"], row["second"], row["chosen_on"]) == ("vgg16", "resnet18", "val")
        assert row["high"] < 0

    @pytest.mark.parametrize("damage", ["missing", "empty", "other images"])
    def test_pairs_that_cannot_be_compared_are_counted(self, damage: str, tmp_path: Path) -> None:
        good = predict()
        bad = {
            "missing": {}, "empty": {}, "other images": good | {"test_index": np_shift(good)},
        }[damage]  # fmt: skip
        write_record(tmp_path, backbone="resnet18", acc=0.9, predictions=bad)
        write_record(tmp_path, backbone="vgg16", acc=0.8, predictions=good)
        if damage == "missing":
            path = make_record(tmp_path, backbone="resnet18", acc=0.9).path
            (Path(path) / "predictions.npz").unlink()
        found = analyse(tmp_path)

        assert found.tables["paired"].frame.empty
        assert any(text.startswith("Not compared: 1 pair of backbones") for _, text in found.notes)

    def test_against_the_paper(self, tmp_path: Path) -> None:
        acc = (
            load_baseline()
            .query("dataset == 'breastmnist' and protocol == 'knn' and size == 28")
            .set_index("backbone")["acc_mean"]
        )
        write_record(tmp_path, "knn", backbone="vgg16", acc=acc["vgg16"] / 100)
        write_record(tmp_path, "knn", backbone="resnet18", acc=acc["resnet18"] / 100 - 0.05)
        write_record(tmp_path, "knn", backbone="my_net", acc=0.999)
        paper = load_reference("paper")
        found = " ".join(analyse(tmp_path, reference=paper, tolerance=2, tuned="fixed").findings)

        assert "1 of 2 cells lie within 2 points of the ACC of the paper" in found
        assert "of the 2 that were run under its conditions, 1" in found
        assert "my_net would be 1 of 11 among those of the paper under kNN at 28 px" in found
        assert "under the same data official, weights trained, fit pad, precision fp32" in found
        found = " ".join(analyse(tmp_path, reference=paper, tolerance=6).findings)
        assert "2 of 2 cells lie within 6 points" in found
        assert "paper" not in " ".join(analyse(tmp_path).findings)


def np_shift(made: dict[str, Any]) -> Any:
    """Return the index of other images."""
    return made["test_index"] + 1


def test_scores_that_differ_by_rounding_alone_are_ties() -> None:
    """The mean over three seeds of a score is not always that score to the last bit."""
    acc: Rows = {}
    for right in range(80, 156):
        score = 100 * (right / 156)
        acc[f"d{right}", "probe", "resnet18", 28] = (score + score + score) / 3
        acc[f"d{right}", "knn", "resnet18", 28] = score
    [gap] = protocol_gaps(cells(acc))
    assert "better in 0 of 76 cases, equal in 76" in gap


def test_of_equals_none_is_the_highest() -> None:
    acc: Rows = {("x", "probe", name, 28): 100 * (80 / 156) for name in ("resnet18", "vgg16")}
    [best] = best_averages(with_averages(cells(acc)))
    assert "VGG16 at 28 px and ResNet-18 at 28 px have the highest" in best
