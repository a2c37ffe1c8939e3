"""docs/data.md: its commands run on real images, and its table of keys is complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from medplus.datasets.description import Description, read_description
from medplus.datasets.sources import load_dataset

DOCS = (Path(__file__).parents[2] / "docs/data.md").read_text()
COMMANDS = re.findall(r"^\$ medplus (.*)$", DOCS, flags=re.MULTILINE)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """scikit-learn's 1,797 digits as PNGs by class, without a split."""
    bundled = load_digits()
    for number, (image, label) in enumerate(zip(bundled.images, bundled.target, strict=True)):
        path = tmp_path / "digits" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)).save(path)
    return tmp_path / "digits"


def test_commands_run_and_score_as_scikit_learn_does(cli, digits):
    ran = {}
    for command in COMMANDS:
        words = shlex.split(command)
        ran[words[0]] = cli(*words, "--json")
        assert ran[words[0]].code == 0, ran[words[0]].err
    [store] = ran["extract"].document["stores"]
    assert sum(store["splits"].values()) == 1797 and store["dim"] == 8 * 8

    data = load_dataset(str(digits), 8)
    flat = {s: (np.reshape(p.images, (len(p), -1)), p.labels[:, 0]) for s, p in data.splits.items()}
    for run in ran["knn"].document["runs"]:
        if run["k"] == 1:
            oracle = KNeighborsClassifier(1).fit(*flat["train"]).score(*flat["test"])
            assert run["metrics"]["test"]["acc"] == pytest.approx(oracle, abs=1e-6)
        assert run["metrics"]["test"]["acc"] > 0.95
    heads = [r["metrics"]["test"]["acc"] for r in ran["probe"].document["runs"] if r["selected"]]
    # What a linear model can: scikit-learn's logistic regression has 93.0 to 96.9 % on this split.
    assert len(heads) == 3 and np.mean(heads) > 0.95


def test_selection_without_a_size_finds_what_was_read(cli, fill):
    words = ("--dataset", str(fill({"a": 5, "b": 5})), "--backbone", "pixels")
    assert cli("extract", *words, "--size", "16").code == 0
    [run] = cli("knn", *words, "--k", "1", "--json").document["runs"]
    assert (run["dataset"], run["size"], run["data_source"]) == ("data", 16, "custom")


def test_every_key_of_a_description_is_in_the_table():
    cells = re.findall(r"^\| (`[^|]*`) \|", DOCS.split("## dataset.yaml")[1], flags=re.MULTILINE)
    told = [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(Description.model_fields)


def test_example_of_a_description_is_one(tmp_path):
    [example] = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    (tmp_path / "dataset.yaml").write_text(example)
    assert read_description(tmp_path).name == "lesions"
