"""`medplus quickstart`: the whole way on synthetic data, in one command."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus import quickstart
from medplus.backbones.sources import demo
from medplus.reporting import report

DATASETS = ("breastmnist", "bloodmnist", "chestmnist")


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "EPOCHS", 5)
    monkeypatch.setitem(quickstart.FINETUNING, "epochs", 1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection and every name: nothing here is to be downloaded."""
    tried = []

    def refuse(*arguments: object, **_: object) -> Any:
        tried.append(arguments)
        raise OSError("the network is refused")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert tried == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the network, the larger size and the report out: one test has them."""
    monkeypatch.setattr(quickstart, "SIZES", (28,))
    monkeypatch.setattr(quickstart, "choose_network", lambda: ("pixels", "none"))
    monkeypatch.setattr(quickstart, "FINETUNED", ("bloodmnist", 28))
    monkeypatch.setattr(report, "write_report", lambda analysis, out: [out / "index.html"])


def run(cli: Callable, *more: object) -> Any:
    ran = cli("quickstart", "--samples", "200", *more)
    assert ran.code == 0, ran.err
    return ran


@pytest.mark.parametrize(
    ("network", "weights"),
    [
        ("efficientnet_lite0", "pretrained"),
        pytest.param("mobilenetv3_small_050", "none", marks=pytest.mark.extensive),
    ],
)
def test_goes_the_whole_way_and_says_what_to_do_next(
    network: str, weights: str, cli: Callable, leftovers: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    if network not in demo.available():
        network, weights = "mobilenetv3_small_050", "none"
    monkeypatch.setattr(quickstart, "choose_network", lambda: (network, weights))
    ran = run(cli)

    for number in "123456":
        assert f"\n{number}. " in f"\n{ran.err}"
    for dataset in DATASETS:
        assert f"\n{dataset}: ACC and AUC in percent" in ran.out
    for size in (28, 64):
        assert len(list(Path("quickstart/embeddings").glob(f"*/{size}/*.zarr"))) == 6
    assert len(list(Path("quickstart/runs/knn").rglob("record.json"))) == 36
    assert len(list(Path("quickstart/runs/probe").rglob("record.json"))) == 12 * 3 * 13
    [finetuned] = Path("quickstart/runs/finetune/bloodmnist/64").glob("*/*/")
    assert (finetuned / "learning_curve.png").exists()
    assert Path("quickstart/report/index.html").exists()
    assert len(list(Path("quickstart/report/figures").glob("*.png"))) >= 5
    assert f"Trained end to end for 1 epochs, {network} reaches ACC" in ran.out
    assert "(frozen, with a probe: ACC " in ran.out
    assert leftovers(Path()) == []
    steps = [line.split("(")[0] for line in ran.out.splitlines() if "medplus extract" in line]
    assert shlex.split(steps[0])[:3] == ["medplus", "extract", "--dataset"]


def test_document_agrees_with_the_runs_on_disk(cli: Callable, small: None) -> None:
    document = run(cli, "--json").document

    assert {"root", "seconds", "stores", "runs", "verdict"} <= set(document)
    assert [v["dataset"] for v in document["verdict"]] == [*sorted(DATASETS), "all"]
    for verdict in document["verdict"][:-1]:
        own = [r for r in document["runs"] if r["dataset"] == verdict["dataset"]]
        for best in (verdict["best"], *verdict["not_distinguishable"]):
            accuracies = [
                r["metrics"]["test"]["acc"]
                for r in own
                if r["protocol"] == best["protocol"] and r.get("selected", True)
            ]
            assert best["n_seeds"] == len(accuracies)
            assert best["test_acc"] == pytest.approx(np.mean(accuracies))
        for r in own:
            stored = json.loads((Path(r["path"]) / "record.json").read_text())
            assert stored["metrics"] == r["metrics"]

        with np.load(f"quickstart/data/{verdict['dataset']}.npz") as arrays:
            train, test = arrays["train_labels"], arrays["test_labels"]
        if verdict["dataset"] == "chestmnist":
            most_frequent = ((train.mean(axis=0) > 0.5) == test).mean()
        else:
            most_frequent = (np.bincount(train[:, 0]).argmax() == test[:, 0]).mean()
        assert verdict["baseline_acc"] == pytest.approx(most_frequent)


@pytest.mark.extensive
def test_second_call_uses_what_is_there(cli: Callable, small: None) -> None:
    first = run(cli, "--json").document
    second = run(cli, "--json").document

    assert [s["status"] for s in second["stores"]] == ["skipped"] * 3
    assert second["verdict"] == first["verdict"]


@pytest.mark.extensive
def test_another_number_of_samples_gives_other_stores(cli: Callable, small: None) -> None:
    first = run(cli, "--json").document
    ran = cli("quickstart", "--samples", "240", "--json")

    assert ran.code == 0
    assert [s["status"] for s in ran.document["stores"]] == ["extracted"] * 3
    assert {s["key"] for s in ran.document["stores"]}.isdisjoint(s["key"] for s in first["stores"])


def test_quiet_is_silent_and_the_folder_is_named(cli: Callable, small: None) -> None:
    ran = run(cli, "-q", "--out", "my first")

    assert ran.err == ""
    command = next(line for line in ran.out.splitlines() if "store ls" in line)
    listed = cli(*shlex.split(command)[1:], "--json").document["stores"]
    assert [row["dataset"] for row in listed] == sorted(DATASETS)


def test_too_few_samples_are_refused_before_work(cli: Callable) -> None:
    ran = cli("quickstart", "--samples", "10")

    assert ran.code == 2
    assert not Path("quickstart").exists()
