"""`medplus evaluate` as a user runs it: on runs that `finetune` and `probe` have made."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FLAGS = ("organcmnist", "organsmnist")  # two datasets of the same eleven classes


@pytest.fixture
def data(cli: Callable) -> None:
    """Small stand-ins of two datasets, in the working directory."""
    for flag in FLAGS:
        assert cli("phantom", "--dataset", flag, "--out", "data", "--samples", 150).code == 0


def extract(cli: Callable, flag: str) -> None:
    assert cli("extract", "--dataset", flag, "--backbone", "pixels").code == 0


def train(cli: Callable, protocol: str, *options: object) -> dict[str, Any]:
    """Make one run on the first dataset, and return its record."""
    shared = ("--dataset", FLAGS[0], "--backbone", "pixels", "--seed", 1, "--epochs", 2)
    ran = cli(protocol, *shared, *options, "--json")
    assert ran.code == 0, ran.err
    [record] = ran.document["runs"]
    return dict(record)


@pytest.fixture
def network(cli: Callable, data: None) -> dict[str, Any]:
    """The record of a fine-tuned run."""
    return train(cli, "finetune", "--weights", "none")


@pytest.fixture
def head(cli: Callable, data: None) -> dict[str, Any]:
    """The record of a probe run."""
    extract(cli, FLAGS[0])
    return train(cli, "probe")


def evaluate(cli: Callable, *arguments: object) -> list[dict[str, Any]]:
    ran = cli("evaluate", *arguments, "--json")
    assert ran.code == 0, ran.err
    return list(ran.document["runs"])


def test_a_network_finds_the_file_that_it_was_trained_on_and_leaves_out_the_same_images(
    cli: Callable, write_npz: Callable
) -> None:
    write_npz("mine", folder=Path.cwd())
    Path("suspects.csv").write_text("name,split,index,kind,verdict\n,test,0,label,exclude\n")
    words = ("--dataset", "mine.npz", "--backbone", "pixels", "--exclude", "suspects.csv")
    [run] = cli("finetune", *words, "--epochs", 1, "--device", "cpu", "--json").document["runs"]

    [found] = evaluate(cli, run["path"], "--device", "cpu")

    assert found["metrics"] == run["metrics"]


@pytest.mark.parametrize("recipe", ["paper", "modern"])
@pytest.mark.parametrize("backbone", ["pixels", "mobilenetv3_small_050"])
def test_a_network_scores_on_its_own_data_what_training_recorded(
    backbone: str, recipe: str, cli: Callable, data: None
) -> None:
    options = ("--recipe", recipe, "--weights", "none", "--device", "cpu")
    if backbone == "pixels":
        run = train(cli, "finetune", *options)
    else:
        small = ("--dataset", FLAGS[0], "--backbone", backbone, "--seed", 1, "--epochs", 1)
        [run] = cli("finetune", *small, *options, "--json").document["runs"]

    [found] = evaluate(cli, run["path"], "--device", "cpu")

    assert found["run_id"] == run["run_id"]
    assert found["metrics"] == run["metrics"]
    with (
        np.load(Path(run["path"]) / "predictions.npz") as before,
        np.load(Path(found["path"]) / "predictions.npz") as after,
    ):
        assert set(before) == set(after)
        for name in before:
            np.testing.assert_array_equal(after[name], before[name])


def test_a_head_scores_on_its_own_data_what_was_recorded(
    cli: Callable, head: dict[str, Any]
) -> None:
    [found] = evaluate(cli, head["path"])

    for split, metrics in head["metrics"].items():
        assert found["metrics"][split].keys() == metrics.keys()
        for name, value in metrics.items():
            assert found["metrics"][split][name] == pytest.approx(value, abs=1e-6), name
    assert found["store"] == head["store"]


def test_networks_and_heads_are_scored_on_other_data(
    cli: Callable, network: dict[str, Any], head: dict[str, Any]
) -> None:
    extract(cli, FLAGS[1])

    found = evaluate(cli, network["path"], head["path"], "--dataset", FLAGS[1])

    assert [record["protocol"] for record in found] == ["finetune", "probe"]
    for record, run in zip(found, (network, head), strict=True):
        assert (record["dataset"], record["data_source"]) == (FLAGS[1], "phantom")
        assert Path(record["path"]).parent == Path(run["path"]) / "evaluations"
        assert record["metrics"]["test"] != run["metrics"]["test"]
        written = json.loads((Path(record["path"]) / "record.json").read_text())
        assert {key: written[key] for key in written.keys() - {"files", "seal"}} == record


def test_the_command_that_makes_missing_embeddings_works(
    cli: Callable, head: dict[str, Any]
) -> None:
    ran = cli("evaluate", head["path"], "--dataset", FLAGS[1])
    assert ran.code == 1
    command = shlex.split(ran.err[ran.err.index("medplus extract") :])

    assert cli(*command[1:]).code == 0

    assert cli("evaluate", head["path"], "--dataset", FLAGS[1]).code == 0


def test_table_tells_scores_and_where_they_are_kept(
    cli: Callable, network: dict[str, Any], head: dict[str, Any]
) -> None:
    ran = cli("evaluate", network["path"], "--quiet")
    [line] = [line for line in ran.out.splitlines() if line.startswith(FLAGS[0])]
    assert f"{100 * network['metrics']['test']['acc']:.2f}" in line.split()
    assert f"Records: {network['path']}/evaluations" in ran.out

    ran = cli("evaluate", network["path"], head["path"], "--split", "test")
    assert [word in ran.out for word in ("finetune", "probe", "test ACC", "val ACC")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert "Records: evaluations in the folder of each run" in ran.out


def test_csv_gets_a_file_per_run_and_split(
    cli: Callable, network: dict[str, Any], head: dict[str, Any]
) -> None:
    evaluate(cli, network["path"], head["path"], "--csv", "out")

    names = sorted(path.name.partition("_[")[0] for path in Path("out").iterdir())
    assert names == [f"{FLAGS[0]}_{split}" for split in ("test", "test", "val", "val")]


def test_evaluated_runs_are_still_skipped_by_the_commands_that_made_them(
    cli: Callable, network: dict[str, Any]
) -> None:
    evaluate(cli, network["path"])

    again = train(cli, "finetune", "--weights", "none")

    assert again == network
    assert (Path(network["path"]) / "evaluations").is_dir()


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nothing",), 2, ("nothing does not exist", "medplus finetune")),
        (("data",), 2, ("data is no run",)),
        ((), 2, ("RUN",)),
    ],
)
def test_what_is_no_run_is_told(
    arguments: tuple[str, ...], code: int, says: tuple[str, ...], fails: Callable, data: None
) -> None:
    fails("evaluate", *arguments, code=code, says=says)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--dataset", "organamnist"), 1, ("organamnist.npz does not exist", "medplus phantom")),
        (("--dataset", "organxmnist"), 2, ("unknown dataset", "did you mean")),
        (("--size", 64), 1, ("organcmnist_64.npz does not exist",)),
        (("--split", "val,tests"), 2, ("'tests'",)),
        (("--data-root", "no"), 1, ("organcmnist.npz does not exist", "--data-root")),
    ],
)
def test_options_that_cannot_be_are_told(
    options: tuple[object, ...],
    code: int,
    says: tuple[str, ...],
    fails: Callable,
    network: dict[str, Any],
) -> None:
    fails("evaluate", network["path"], *options, code=code, says=says)


def test_other_classes_are_told_with_both_lists(
    fails: Callable, cli: Callable, network: dict[str, Any]
) -> None:
    assert cli("phantom", "--dataset", "bloodmnist", "--out", "data", "--samples", 90).code == 0

    says = ("11 classes", "'spleen'", "8 classes", "'platelet'", "--dataset")
    fails("evaluate", network["path"], "--dataset", "bloodmnist", code=2, says=says)


def test_a_knn_run_is_told_to_have_nothing_to_score(
    fails: Callable, cli: Callable, head: dict[str, Any]
) -> None:
    shared = ("--dataset", FLAGS[0], "--backbone", "pixels", "--k", 3)
    [run] = cli("knn", *shared, "--json").document["runs"]

    fails("evaluate", run["path"], code=2, says=("is a kNN run", "medplus knn"))


def test_a_damaged_network_is_told(fails: Callable, network: dict[str, Any]) -> None:
    path = Path(network["path"]) / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    fails("evaluate", network["path"], code=1, says=("network.safetensors", "damaged"))


def test_embeddings_that_are_gone_are_told(fails: Callable, head: dict[str, Any]) -> None:
    shutil.rmtree("embeddings")

    says = ("pixels-", "under embeddings", "--store")
    fails("evaluate", head["path"], code=1, says=says)
