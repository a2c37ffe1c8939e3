"""`medplus phantom`: the command; what it writes is tested in tests/datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

PHANTOM = ("phantom", "--dataset", "breastmnist", "--samples", "60", "--out", "ph")


def test_document_names_every_file(cli: Callable) -> None:
    several = ("--dataset", "breastmnist,octmnist", "--size", "28,64", "--seed", "3")
    ran = cli("phantom", *several, "--samples", "60", "--out", "ph", "--preview", "p.png", "--json")

    phantoms = ran.document["phantoms"]
    assert [(p["dataset"], p["size"]) for p in phantoms] == [
        (dataset, size) for dataset in ("breastmnist", "octmnist") for size in (28, 64)
    ]
    assert ran.document["preview"] == "p.png"
    for entry in phantoms:
        with np.load(entry["path"]) as arrays:
            for split, count in entry["splits"].items():
                assert arrays[f"{split}_images"].shape == (count, entry["size"], entry["size"])
        assert (entry["seed"], entry["difficulty"]) == (3, 0.5)
    assert cli(*PHANTOM, "--json").document["preview"] is None


def test_shown_files_and_preview(cli: Callable) -> None:
    ran = cli(*PHANTOM, "--preview", "sheets/all.png")

    assert ran.out.splitlines()[0].startswith("ph/breastmnist.npz  28 px  60 images  (train ")
    assert "sheets/all.png" in ran.out
    assert Path("sheets/all.png").read_bytes().startswith(b"\x89PNG")


def test_settings_may_stand_in_a_config_file(cli: Callable) -> None:
    Path("p.yaml").write_text("dataset: breastmnist\nsamples: 60\nout: ph\nsize: [28]\n")

    assert cli("phantom", "--config", "p.yaml").code == 0
    assert (
        cli("phantom", "--config", "p.yaml", "--samples", "66", "--json").document["phantoms"][0][
            "splits"
        ]["train"]
        > 40
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--dataset brestmnist --out ph", "did you mean 'breastmnist'"),
        ("--dataset breastmnist", "--out"),
        ("--dataset breastmnist --out ph --size 33", "size 33"),
        ("--dataset breastmnist --out ph --size big", "big is not a size"),
        ("--dataset breastmnist --out ph --samples 3", "3 samples are too few"),
        ("--dataset breastmnist,all --out ph --samples 20", "of bloodmnist"),
        ("--dataset breastmnist --out ph --difficulty 2", "difficulty 2"),
        ("--dataset breastmnist --out ph --difficulty nan", "difficulty nan"),
        ("--dataset breastmnist --out ph --seed -1", "seed -1"),
    ],
)
def test_wrong_usage_writes_nothing(arguments: str, says: str, cli: Callable) -> None:
    ran = cli("phantom", *arguments.split())

    assert ran.code == 2
    assert ran.err.startswith("Error: ")
    assert says in ran.err
    assert not Path("ph").exists()
