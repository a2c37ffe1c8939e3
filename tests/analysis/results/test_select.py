"""Like with like: no cell mixes what differs, whatever the runs folder holds."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.analysis.results.cells import KEYS, comparable, network_of
from medplus.analysis.results.runs import RUN_COLUMNS, read_runs
from medplus.analysis.results.select import ON_VAL, Selection, select_alike
from medplus.errors import UsageError
from tests.analysis.ledgers import write_record

CONDITIONS = {"data": "official", "weights": "trained", "fit": "pad", "precision": "fp32"}
HEADS = {"knn": {"k": "11"}, "probe": {"lr": "0.0001"}, "finetune": {"schedule": "paper"}}


def make_run(number: int, **fields: Any) -> dict[str, Any]:
    """Return a row of a table of runs; keywords are columns, or conditions."""
    row: dict[str, Any] = {
        "dataset": "toy", "protocol": "probe", "backbone": "resnet18", "size": 28, "seed": 1,
        "acc": 80.0, "auc": 90.0, "acc_low": 70.0, "acc_high": 90.0, "val_acc": 75.0,
        "val_auc": 85.0, "device_seconds": 1.0, "extraction_seconds": 0.0, "device": "cpu",
        "run": f"run{number:03}",
        "run_id": f"{number}", "created": "2026-01-01", "digests": ("images", "weights"),
        "task": "binary-class",
    }  # fmt: skip
    row |= {name: value for name, value in fields.items() if name in row}
    conditions = {**CONDITIONS, **HEADS[row["protocol"]]}
    conditions |= {name: value for name, value in fields.items() if name not in row}
    if row["backbone"] == "pixels":
        conditions |= dict.fromkeys(("weights", "fit", "precision"), "any")
    row["weights"] = "imagenet" if conditions["weights"] == "trained" else "none"
    if row["protocol"] == "knn":
        row["seed"] = None
    return {**row, "conditions": conditions}


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Return a table of runs from keywords of `make_run`."""
    made = [make_run(number, **fields) for number, fields in enumerate(rows)]
    frame = pd.DataFrame(made, columns=RUN_COLUMNS)
    frame["seed"] = pd.array([row["seed"] for row in made], dtype="Int64")
    return frame


def grid(**varied: list[Any]) -> list[dict[str, Any]]:
    """Return keywords for all combinations."""
    rows: list[dict[str, Any]] = [{}]
    for name, values in varied.items():
        rows = [{**row, name: value} for row in rows for value in values]
    return rows


def apart(selection: Selection) -> dict[str, set[str]]:
    """Return the runs that were set apart, by reason."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in selection.unlike.to_dict("records"):
        found[row["reason"]] |= set(row["runs"])
    return dict(found)


_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "dataset": st.sampled_from(["a", "b"]),
            "protocol": st.sampled_from(["knn", "probe", "finetune"]),
            "backbone": st.sampled_from(["resnet18", "my_net", "pixels"]),
            "seed": st.sampled_from([1, 2]),
            "acc": st.integers(0, 100).map(float),
            "val_acc": st.sampled_from([50.0, 60.0, float("nan")]),
            "val_auc": st.sampled_from([50.0, 60.0]),
            "created": st.sampled_from(["2026-01-01", "2026-01-02"]),
            "digests": st.tuples(st.sampled_from(["i", "j", None]), st.sampled_from(["w", "x"])),
            "data": st.sampled_from(["official", "phantom"]),
            "weights": st.sampled_from(["trained", "random"]),
            "fit": st.sampled_from(["pad", "native"]),
            "precision": st.sampled_from(["fp32", "bf16"]),
        }
    ).flatmap(
        lambda row: st.sampled_from(
            [
                row | {name: value}
                for name, values in {
                    "knn": {"k": ["11", "5"]},
                    "probe": {"lr": ["0.0001", "0.1"]},
                    "finetune": {"schedule": ["paper", "cosine"]},
                }[row["protocol"]].items()
                for value in values
            ]
        )
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=25)
@given(rows=_ROWS, tuned=st.sampled_from(["fixed", "val"]), order=st.randoms())
def test_nothing_unlike_is_mixed_nothing_is_lost_and_order_does_not_matter(
    rows: list[dict[str, Any]], tuned: Any, order: Any
) -> None:
    runs = table(*rows)
    by_run = runs.set_index("run").to_dict("index")
    found = select_alike(runs, tuned=tuned)

    # Each run stands in one place.
    kept, left = list(found.cells["runs"].sum()), list(found.unlike["runs"].sum() or ())
    assert len({*kept, *left}) == len(kept) + len(left)
    assert set(kept) == set(found.runs["run"])
    if tuned == "fixed":
        assert {*kept, *left} == set(by_run)

    # All that is kept is alike, but for what is compared; raw pixels have no precision.
    for group, names in ((["dataset"], {"data"}), (["protocol"], {"precision", "k", "lr"})):
        for _, part in found.runs.groupby(group):
            values = defaultdict(set)
            for conditions in part["conditions"]:
                for name, value in conditions.items():
                    values[name] |= {value} - {"any"}
            assert all(len(values[name]) <= 1 for name in names)
    # What differs in weights or fit bears another name.
    for _, part in found.runs.groupby(KEYS):
        assert len({(c["weights"], c["fit"]) for c in part["conditions"]}) == 1
    images = found.runs["digests"].str[0].map(str)
    assert images.groupby([found.runs["dataset"], found.runs["size"]]).nunique().max() == 1
    for row in [*found.cells.to_dict("records"), *found.unlike.to_dict("records")]:
        members = [by_run[run] for run in row["runs"]]
        own = {**row, "backbone": network_of(row["backbone"])}
        assert {tuple(m[name] for name in KEYS) for m in members} == {tuple(own[k] for k in KEYS)}
        assert len({str(m["digests"]) for m in members}) == 1
        assert row["n_seeds"] == len(members)
        assert row["acc_mean"] == pytest.approx(np.mean([m["acc"] for m in members]))
    assert not found.runs.duplicated([*KEYS, "seed"]).any()

    # The order of rows decides nothing.
    shuffled = list(range(len(runs)))
    order.shuffle(shuffled)
    other = select_alike(runs.iloc[shuffled].reset_index(drop=True), tuned=tuned)
    assert set(other.runs["run"]) == set(kept)
    assert apart(other) == apart(found)


@settings(max_examples=20)
@given(rows=_ROWS, scores=st.randoms())
def test_tuning_looks_at_val_and_never_at_test(rows: list[dict[str, Any]], scores: Any) -> None:
    runs = table(*rows)
    chosen = select_alike(runs, tuned="val")
    other = runs.assign(acc=[scores.random() for _ in rows], auc=0.0, acc_low=0.0, acc_high=1.0)

    assert set(select_alike(other, tuned="val").runs["run"]) == set(chosen.runs["run"])
    # What was dropped has a rival that differs in what was tuned only, and is as good on val.
    left = [*chosen.runs["run"], *(run for runs in apart(chosen).values() for run in runs)]
    by_run = runs.set_index("run").to_dict("index")
    for run in set(by_run) - set(left):
        one = by_run[run]
        rivals = [by_run[other] for other in left if _untuned(by_run[other]) == _untuned(one)]
        assert len(rivals) == 1
        assert not rivals[0]["val_acc"] < one["val_acc"]


def test_a_head_chosen_on_val_costs_its_whole_search_on_embeddings_made_once():
    heads = [
        {"lr": f"{lr}", "val_acc": 70.0 + lr, "device_seconds": 3.0, "extraction_seconds": 2.0}
        for lr in range(13)
    ]
    runs = table(*heads)
    assert select_alike(runs, tuned="val").cells["device_seconds"].tolist() == [15.0]
    fixed = select_alike(runs, [("lr", "3")])
    assert fixed.cells["device_seconds"].tolist() == [3.0]


def _untuned(run: dict[str, Any]) -> str:
    rest = {n: v for n, v in run["conditions"].items() if n not in ("k", "lr", "weight_decay")}
    return str([*(run[name] for name in KEYS), run["seed"], run["digests"], rest])


def test_means_and_deviations_over_seeds() -> None:
    runs = table(
        *({"seed": s, "acc": a, "auc": a / 2, "acc_low": a - 1, "acc_high": a + 2}
          for s, a in ((1, 80.0), (2, 82.0), (3, 87.0)))
    )  # fmt: skip
    (cell,) = select_alike(runs).cells.to_dict("records")

    assert cell["acc_mean"] == 83
    assert cell["acc_std"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert (cell["auc_mean"], cell["n_seeds"]) == (41.5, 3)
    assert cell["auc_std"] == pytest.approx(cell["acc_std"] / 2)
    assert (cell["acc_low"], cell["acc_high"]) == (82, 85)
    assert cell["runs"] == ("run000", "run001", "run002")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"data": "phantom"}, "data phantom, not official"),
        ({"precision": "bf16"}, "precision bf16, not fp32"),
        ({"rows": "without 12345678"}, "rows without 12345678, not all"),
        ({"lr": "0.1"}, "lr 0.1, not 0.0001"),
        ({"lr": "0.1", "precision": "bf16"}, "precision bf16, not fp32, lr 0.1, not 0.0001"),
    ],
)
def test_the_condition_with_the_most_cells_is_taken(other: dict[str, str], reason: str) -> None:
    runs = table({"dataset": "a"}, {"dataset": "b"}, {"dataset": "b", "acc": 10.0, **other})
    found = select_alike(runs)

    assert list(found.cells["acc_mean"]) == [80, 80]
    assert apart(found) == {reason: {"run002"}}
    (row,) = found.unlike.to_dict("records")
    assert (row["acc_mean"], row["n_seeds"]) == (10, 1)
    for value in other.values():
        assert value in row["conditions"]
        assert value not in found.conditions["probe"]


@pytest.mark.parametrize(
    ("protocol", "name", "paper", "other"),
    [
        ("probe", "data", "official", "phantom"),
        ("probe", "lr", "0.0001", "0.1"),
        ("knn", "k", "11", "5"),
        ("finetune", "schedule", "paper", "cosine"),
    ],
)
def test_of_equally_many_cells_those_of_the_paper_are_taken(
    protocol: str, name: str, paper: str, other: str
) -> None:
    runs = table(
        {"protocol": protocol, name: other, "created": "2027"},
        {"protocol": protocol, name: paper, "created": "2026"},
    )

    assert list(select_alike(runs).runs["run"]) == ["run001"]


def test_random_networks_do_not_set_a_trained_one_apart() -> None:
    random = grid(backbone=["a", "b", "c"], precision=["bf16"], weights=["random"])
    found = select_alike(table({"backbone": "resnet18"}, *random))

    assert list(found.runs["run"]) == ["run000"]
    assert apart(found) == {"precision bf16, not fp32": {"run001", "run002", "run003"}}


def test_a_condition_holds_within_its_protocol_only() -> None:
    runs = table(
        {"protocol": "knn", "precision": "bf16"}, {"protocol": "probe", "precision": "fp32"}
    )
    found = select_alike(runs)

    assert len(found.cells) == 2
    assert "precision bf16" in found.conditions["knn"]
    assert "precision fp32" in found.conditions["probe"]


def test_raw_pixels_stand_beside_networks_of_any_fit() -> None:
    fits = [{"protocol": "knn", "fit": "native", "weights": "random"}]
    found = select_alike(table(*fits, {"protocol": "knn", "backbone": "pixels"}))

    assert list(found.cells["backbone"]) == ["resnet18", "pixels"]
    assert "weights random, fit native" in found.conditions["knn"]


def test_other_data_under_one_name_are_set_apart_and_of_other_names_stay() -> None:
    pixels = {"protocol": "knn", "backbone": "pixels"}
    runs = table(
        {"protocol": "knn", "data": "phantom"},
        {**pixels, "data": "phantom"},
        {**pixels, "data": "official", "run": "official"},
        {**pixels, "data": "official", "dataset": "mine"},
    )
    assert apart(select_alike(runs)) == {"data official, not phantom": {"official"}}


def test_weights_fits_and_features_are_compared_by_name() -> None:
    runs = table(
        {"protocol": "knn"},
        {"protocol": "knn", "fit": "native"},
        {"protocol": "knn", "weights": "random"},
        {"protocol": "knn", "fit": "native", "weights": "random", "feature": "cls"},
        {"protocol": "knn", "backbone": "pixels"},
    )
    found = select_alike(runs)

    assert list(found.cells["backbone"]) == [
        "resnet18", "resnet18 · native", "resnet18 · random weights",
        "resnet18 · random weights, native", "pixels",
    ]  # fmt: skip
    assert list(found.cells["fit"]) == ["pad", "native", "pad", "native", ""]
    assert found.unlike.empty
    compared, left_out = comparable(found.cells)
    assert set(compared["backbone"]) == {"resnet18", "resnet18 · native", "pixels"}
    assert left_out == []


def test_low_rank_updates_are_compared_with_full_fine_tuning_by_name() -> None:
    runs = table(
        {"protocol": "finetune", "lora": "0"},
        {"protocol": "finetune", "lora": "8"},
        {"protocol": "probe"},
    )
    found = select_alike(runs)

    assert found.unlike.empty
    rows = found.cells.set_index(["protocol", "backbone"])["lora"].to_dict()
    assert rows == {
        ("finetune", "resnet18"): "",
        ("finetune", "resnet18 · LoRA r = 8"): "8",
        ("probe", "resnet18"): "",
    }


def test_weights_of_one_name_are_named_where_there_are_several() -> None:
    runs = table({"weights": "trained"}, {"weights": "trained", "backbone": "vgg16"})
    runs.loc[2] = runs.loc[0]
    runs.loc[2, ["weights", "run"]] = ["folder/mine.safetensors", "run002"]
    assert list(select_alike(runs).cells["backbone"]) == [
        "vgg16", "resnet18 · imagenet", "resnet18 · mine.safetensors",
    ]  # fmt: skip


def test_other_images_or_weights_under_the_same_name() -> None:
    """A row compares its cells, so all of a dataset and size must have seen the same images."""
    old, new = ({"digests": (name, "w")} for name in ("old", "new"))
    runs = table(
        {**old, "seed": 1}, {**old, "seed": 2}, {**old, "backbone": "vgg16"}, {**old, "size": 64},
        {**new, "seed": 1, "created": "2026-02"},
    )  # fmt: skip
    found = select_alike(runs)

    reason = "other images under the same name, since replaced"
    assert apart(found) == {reason: {"run000", "run001", "run002"}}
    assert set(found.runs["run"]) == {"run003", "run004"}
    runs = table(
        {"digests": ("i", "new"), "seed": 1, "created": "2026-02"},
        {"digests": ("i", "old"), "seed": 2},
    )
    reason = "other weights under the same name, since replaced"
    assert apart(select_alike(runs)) == {reason: {"run001"}}


@pytest.mark.parametrize("protocol", ["knn", "probe"])
def test_the_same_seed_again_is_no_second_seed(protocol: str) -> None:
    runs = table(
        {"protocol": protocol, "acc": 70.0, "created": "2026-02"},
        {"protocol": protocol, "acc": 90.0, "created": "2026-01"},
    )
    found = select_alike(runs)

    assert list(found.cells["acc_mean"]) == [70]
    assert list(found.cells["n_seeds"]) == [1]
    assert list(apart(found).values()) == [{"run001"}]


def test_tuning_takes_the_best_on_val_of_each_cell_and_seed() -> None:
    runs = table(
        {"seed": 1, "lr": "0.1", "val_acc": 60.0, "acc": 99.0},
        {"seed": 1, "lr": "0.2", "val_acc": 70.0, "acc": 50.0},
        {"seed": 2, "lr": "0.1", "val_acc": 70.0, "acc": 52.0, "val_auc": 60.0},
        {"seed": 2, "lr": "0.2", "val_acc": 70.0, "acc": 99.0, "val_auc": 50.0},
        {"protocol": "finetune", "lr": "0.1", "val_acc": 10.0, "acc": 30.0},
        {"protocol": "finetune", "lr": "0.2", "val_acc": 90.0, "acc": 99.0, "created": "2025"},
    )
    found = select_alike(runs, tuned="val")

    assert set(found.runs["run"]) >= {"run001", "run002"}
    probe = found.cells[found.cells["protocol"] == "probe"]
    assert list(probe["acc_mean"]) == [51]
    assert f"lr {ON_VAL}" in found.conditions["probe"]
    # Fine-tuning has no search: its recipes stay apart.
    assert apart(found) == {"lr 0.2, not 0.1": {"run005"}}


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        ([("k", "5")], {"k5", "probe"}),  # a probe has no k that could leave it out
        ([("k", "5"), ("protocol", "knn")], {"k5"}),
        ([("protocol", "knn"), ("k", "5")], {"k5"}),
        ([("lr", "1e-4")], {"probe", "k5", "k11"}),
        ([("size", "28"), ("protocol", "probe")], {"probe"}),
        ([("seed", "4611686018427387905"), ("protocol", "probe")], {"probe"}),
        ([("seed", "4611686018427387905")], {"probe", "k5", "k11"}),
        ([("k", "5"), ("k", "11")], {"k5", "k11", "probe"}),
        ([("dataset", "1"), ("k", "11")], {"k11", "probe"}),
    ],
)
def test_only_what_is_asked_for(only: list[tuple[str, str]], wanted: set[str]) -> None:
    runs = table(
        {"run": "k5", "protocol": "knn", "k": "5", "dataset": "1"},
        {"run": "k11", "protocol": "knn", "k": "11", "dataset": "1"},
        {"run": "probe", "seed": 2**62 + 1, "dataset": "1"},
        {"run": "other", "seed": 2**62, "dataset": "1.0", "size": 64, "lr": "0.1"},
    )
    found = select_alike(runs, only)

    assert {*found.runs["run"], *(r for rs in apart(found).values() for r in rs)} - {
        "other"
    } == wanted


@pytest.mark.parametrize(
    ("only", "says"),
    [
        ([("fitt", "pad")], "--only fitt: runs have no such condition; did you mean 'fit'?"),
        ([("fit", "resize")], "--only fit=resize: no run has it; there is native, pad"),
        ([("size", "32")], "--only size=32: no run has it; there is 28, 224"),
        ([("fit", "any")], "--only fit=any: no run has it"),
        ([("fit", "pad"), ("size", "224")], "--only: no run has all of it"),
        ([("dataset", "TOY")], "there is toy"),
    ],
)
def test_only_what_no_run_has(only: list[tuple[str, str]], says: str) -> None:
    runs = table({"fit": "pad"}, {"fit": "native", "size": 224})
    with pytest.raises(UsageError) as error:
        select_alike(runs, only)
    assert says in str(error.value)


@pytest.mark.usefixtures("fast_disk")
def test_records_that_differ_in_one_thing_each(tmp_path: Path) -> None:
    """By way of the disk: what a record must tell for runs to be told apart."""
    write_record(tmp_path, seed=1, acc=0.5)
    write_record(tmp_path, seed=2, acc=0.7)
    unlike: list[dict[str, Any]] = [
        {"precision": "bf16"},
        {"data": "phantom", "images": "p"}, {"lr": 1.0}, {"epochs": 3},
        {"batch_size": 8}, {"patience": 1},
        {"images": "old", "created": "2025"}, {"weights_digest": "old", "created": "2025"},
    ]  # fmt: skip
    for fields in unlike:
        write_record(tmp_path, acc=0.1, **fields)
    found = select_alike(read_runs(tmp_path).table)

    (cell,) = found.cells.to_dict("records")
    assert cell["acc_mean"] == pytest.approx(60)
    assert cell["n_seeds"] == 2
    assert len(found.unlike) == len(unlike) == found.unlike["reason"].nunique()
