"""Your runs beside the paper's: cell by cell, and the rank of what the paper does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from medplus.analysis.against import AGAINST_COLUMNS, beside
from medplus.analysis.newcomers import ranks_among
from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.results.cells import KEYS
from medplus.analysis.results.contenders import AXES
from medplus.analysis.results.reference import load_reference
from medplus.backbones.catalog import PAPER

PAPER_CONDITIONS = {
    "knn": {"k": "11", "metric": "l2", "vote": "majority"},
    "probe": {
        "lr": "0.0001", "weight_decay": "0.01", "epochs": "100", "batch_size": "64",
        "patience": "5",
    },
    "finetune": {"lr": "0.0001", "schedule": "paper", "decay_bias_and_norm": "true"},
}  # fmt: skip
PAPER_REFERENCE = load_reference("paper")
Frames = tuple[pd.DataFrame, pd.DataFrame]


def make(*rows: dict[str, Any]) -> Frames:
    """Return cells and their runs; by default VGG16's probe of BreastMNIST at 28 px."""
    made, runs = [], []
    for row in rows:
        key = {"dataset": "breastmnist", "protocol": "probe", "backbone": "vgg16", "size": 28}
        conditions = {"data": "official", "weights": "trained", "fit": "pad", "precision": "fp32"}
        values = {"acc_mean": 80.0, "acc_low": np.nan, "acc_high": np.nan}
        key |= {name: value for name, value in row.items() if name in key}
        values |= {name: value for name, value in row.items() if name in values}
        conditions |= PAPER_CONDITIONS[str(key["protocol"])]
        conditions |= {n: v for n, v in row.items() if n not in key and n not in values}
        made.append({**key, **values, "network": key["backbone"]} | dict.fromkeys(AXES, ""))
        runs.append({**key, "conditions": conditions})
    return pd.DataFrame(made), pd.DataFrame(runs)


def paper_cell(protocol: str = "probe") -> pd.Series:
    return load_baseline().set_index(KEYS).loc["breastmnist", protocol, "vgg16", 28]


@pytest.mark.parametrize(
    ("by", "tolerance", "passed"),
    [(0, 2, True), (1.99, 2, True), (2, 2, True), (-2, 2, True), (2.01, 2, False),
     (-2.01, 2, False), (2.01, 2.5, True), (0.01, 0, False), (0, 0, True)],
)  # fmt: skip
def test_difference_and_tolerance(by: float, tolerance: float, passed: bool) -> None:
    paper = paper_cell()
    (row,) = beside(
        *make({"acc_mean": paper["acc_mean"] + by}), PAPER_REFERENCE, tolerance
    ).to_dict("records")

    assert list(row) == AGAINST_COLUMNS
    assert row["difference"] == pytest.approx(by)
    assert (row["paper_acc"], row["paper_std"]) == (paper["acc_mean"], paper["acc_std"])
    assert row["tolerance"] == tolerance
    assert row["passed"] == passed
    assert row["differs"] == ""


def test_within_the_papers_spread_and_your_interval() -> None:
    """A row for each rule; what is not known is neither."""
    paper = paper_cell()
    acc, std = paper["acc_mean"], paper["acc_std"]
    rows = [{"acc_mean": acc + by} for by in (std, -std, std + 0.02, -std - 0.02)]
    bounds = [(acc - 1, acc + 1), (acc, acc), (acc + 0.1, acc + 1), (acc - 1, acc - 0.1)]
    rows += [{"acc_low": low, "acc_high": high} for low, high in bounds]
    found = beside(*make(*rows, {"protocol": "knn"}), PAPER_REFERENCE)

    assert list(found["within_spread"][:4]) == [True, True, False, False]
    assert list(found["within_interval"][3:]) == [None, True, True, False, False, None]
    assert found["within_spread"].iloc[-1] is None


@pytest.mark.parametrize(
    ("conditions", "differs"),
    [
        ({"fit": "native"}, "fit native"),
        ({"data": "phantom"}, "data phantom"),
        ({"weights": "random"}, "weights random"),
        ({"precision": "bf16"}, "precision bf16"),
        ({"lr": "0.0001"}, ""),
        ({"lr": "chosen on val"}, "lr chosen on val"),
        ({"epochs": "3", "patience": "1"}, "epochs 3, patience 1"),
        ({"protocol": "knn", "k": "5"}, "k 5"),
        ({"protocol": "knn", "feature": "prelogits"}, ""),
        ({"protocol": "knn", "feature": "any"}, ""),
        ({"protocol": "probe", "feature": "cls"}, "feature cls"),
        ({"protocol": "knn", "metric": "cosine"}, "metric cosine"),
        ({"protocol": "finetune", "mixup": "0.0", "channels_last": "true"}, ""),
        ({"protocol": "finetune", "mixup": "0.2"}, "mixup 0.2"),
        ({"protocol": "finetune", "decay_bias_and_norm": "false"}, "decay_bias_and_norm false"),
        ({"protocol": "finetune", "schedule": "cosine"}, "schedule cosine"),
    ],
)
def test_what_differs_from_the_papers_conditions(conditions: dict[str, str], differs: str) -> None:
    assert list(beside(*make(conditions), PAPER_REFERENCE)["differs"]) == [differs]


@pytest.mark.parametrize(
    "key", [{"dataset": "mine"}, {"backbone": "my_net"}, {"backbone": "pixels"}, {"size": 32}]
)
def test_what_the_paper_lacks_has_no_row(key: dict[str, Any]) -> None:
    found = beside(*make(key), PAPER_REFERENCE)

    assert list(found.columns) == AGAINST_COLUMNS
    assert found.empty


def test_each_cell_beside_its_own() -> None:
    baseline = load_baseline()
    cells, runs = make(*baseline[KEYS].sample(50, random_state=0).to_dict("records"))
    found = beside(cells, runs, PAPER_REFERENCE).merge(baseline, on=KEYS)

    assert len(found) == 50
    assert (found["paper_acc"] == found["acc_mean"]).all()
    np.testing.assert_allclose(found["difference"], 80 - found["paper_acc"])


def test_rank_of_a_newcomer_is_that_of_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    baseline = load_baseline()
    grid = baseline[["dataset", "protocol", "size"]].drop_duplicates()
    chosen = grid.sample(60, random_state=0).to_dict("records")
    rows = [
        {**row, "backbone": name, "acc_mean": rng.uniform(50, 95)}
        for row in chosen
        for name in ("my_net", "pixels")
    ]
    found = ranks_among(*make(*rows), PAPER_REFERENCE)

    acc = {tuple(row[k] for k in KEYS): row["acc_mean"] for row in baseline.to_dict("records")}
    for one in found.to_dict("records"):
        mine = {
            row["dataset"]: row["acc_mean"]
            for row in rows
            if all(row[name] == one[name] for name in ("protocol", "backbone", "size"))
        }
        rivals = [
            np.mean([acc[d, one["protocol"], name, one["size"]] for d in mine]) for name in PAPER
        ]
        assert one["rank"] == 1 + sum(rival >= np.mean(list(mine.values())) for rival in rivals)
        assert (one["of"], one["n_datasets"]) == (11, len(mine))
    groups = {(row["backbone"], row["protocol"], row["size"]) for row in rows}
    assert len(found) == len(groups)
    assert found["rank"].nunique() > 3
    assert list(found["backbone"].unique()) == ["my_net", "pixels"]


@pytest.mark.parametrize("name", list(PAPER))
def test_an_equal_ranks_behind_the_papers(name: str) -> None:
    baseline = load_baseline()
    setting = baseline[(baseline["protocol"] == "finetune") & (baseline["size"] == 224)]
    twin = setting[setting["backbone"] == name].assign(backbone="twin")
    (row,) = ranks_among(*make(*twin.to_dict("records")), PAPER_REFERENCE).to_dict("records")

    means = setting.groupby("backbone")["acc_mean"].mean()
    assert row["rank"] == 1 + (means > means[name] - 1e-6).sum()


@pytest.mark.parametrize("data", ["phantom", "custom"])
def test_other_images_under_an_official_name_are_not_ranked(data: str) -> None:
    """Phantoms bear the names of what they stand in for."""
    assert ranks_among(*make({}, {"backbone": "my_net", "dataset": "mine"}), PAPER_REFERENCE).empty
    assert ranks_among(*make({"backbone": "my_net", "data": data}), PAPER_REFERENCE).empty
    for theirs in ("official", "unofficial"):
        assert len(ranks_among(*make({"backbone": "my_net", "data": theirs}), PAPER_REFERENCE)) == 1


def test_interval_of_a_rank_is_over_datasets_where_there_are_some() -> None:
    baseline = load_baseline()
    setting = baseline[(baseline["protocol"] == "probe") & (baseline["size"] == 224)]
    twin = setting[setting["backbone"] == "resnet18"].assign(backbone="twin")
    (row,) = ranks_among(*make(*twin.to_dict("records")), PAPER_REFERENCE).to_dict("records")

    assert row["over"] == "datasets"
    assert 1 <= row["rank_low"] <= row["rank"] <= row["rank_high"] <= 11
    assert row["rank_low"] < row["rank_high"]


def test_interval_of_a_rank_on_one_dataset_is_over_its_images() -> None:
    mine = {"backbone": "my_net", "acc_mean": 80.0, "acc_low": 10.0, "acc_high": 99.9}
    (row,) = ranks_among(*make(mine), PAPER_REFERENCE).to_dict("records")
    assert (row["rank_low"], row["rank_high"], row["over"]) == (1, 11, "test images")


def test_another_recipe_than_the_papers_has_no_rank() -> None:
    runs = make({"backbone": "my_net", "lr": "0.01"})
    (row,) = ranks_among(*runs, PAPER_REFERENCE).to_dict("records")
    assert pd.isna(row["rank"])
    assert row["differs"] == "lr 0.01"
