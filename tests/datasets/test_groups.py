"""`--group-column`: asked for once, remembered by the split, refused where it means nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import medplus
from medplus.datasets.sources import load_dataset
from medplus.errors import UsageError
from medplus.run.ledger import read_predictions

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def patients(fill) -> Path:
    """Sixty images of fifteen patients, in a table without splits."""
    root = fill({"images": 60})
    with (root / "labels.csv").open("w", newline="") as file:
        rows = [[f"images/{i}.png", i % 2, f"p{i // 4}", f"s{i // 12}"] for i in range(60)]
        csv.writer(file).writerows([["path", "label", "patient", "site"], *rows])
    return root


def splits_of(root: Path) -> dict[str, str]:
    with (root / "splits.csv").open(newline="") as file:
        return {row["path"]: row["split"] for row in csv.DictReader(file)}


def test_groups_that_a_command_names_stay_whole_and_later_commands_need_not_name_them(
    cli, patients
):
    words = ("--dataset", str(patients), "--backbone", "pixels", "--json")
    ran = cli("extract", *words, "--size", "6", "--group-column", "patient")
    assert ran.code == 0, ran.err
    split = splits_of(patients)
    for patient in range(15):
        assert len({split[f"images/{i}.png"] for i in range(4 * patient, 4 * patient + 4)}) == 1
    [store] = ran.document["stores"]
    [again] = cli("extract", *words, "--size", "6").document["stores"]
    assert (again["status"], again["key"]) == ("skipped", store["key"])
    larger = load_dataset(str(patients), 8)
    assert {s: len(p) for s, p in larger.splits.items()} == store["splits"]
    assert splits_of(patients) == split


def test_images_without_a_patient_are_told_at_every_size(patients):
    table = patients / "labels.csv"
    table.write_text(table.read_text().replace("p3,", ","))
    for size in (6, 8):  # the second follows the split that the first has written
        [warning] = load_dataset(str(patients), size).card.warnings
        assert warning.startswith("4 images (first: images/12.png, ")
        assert "without a 'patient'" in warning


@pytest.mark.parametrize("first", [None, "patient"])
def test_another_column_than_the_written_splits_is_refused(patients, first):
    load_dataset(str(patients), 6, group_column=first)
    with pytest.raises(UsageError, match=r"splits.csv was made with .* group_column=site .*anew"):
        load_dataset(str(patients), 6, group_column="site")


def test_another_column_than_the_descriptions_is_refused(patients):
    (patients / "dataset.yaml").write_text("group_column: patient")
    with pytest.raises(UsageError, match=r"--group-column site: .* says group_column: patient"):
        load_dataset(str(patients), 6, group_column="site")
    (patients / "dataset.yaml").write_text("group_column: pateint")
    with pytest.raises(UsageError, match=r"no column 'pateint' .*did you mean 'patient'"):
        load_dataset(str(patients), 6)
    (patients / "dataset.yaml").write_text("group_column: patient")
    load_dataset(str(patients), 6, group_column="patient")


def test_given_splits_are_checked_also_after_they_were_read_without(fill):
    root = fill({"images": 6})
    rows = [[f"images/{i}.png", ("train", "val", "test")[i % 3], i % 2, "p"] for i in range(6)]
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "split", "label", "patient"], *rows])
    load_dataset(str(root), 6)
    with pytest.raises(UsageError, match="1 group of 1 in the column 'patient'"):
        load_dataset(str(root), 6, group_column="patient")


@pytest.mark.parametrize("name", ["breastmnist", "my.npz"])
@pytest.mark.parametrize("command", ["extract", "finetune"])
def test_it_is_refused_for_what_is_no_folder_before_anything_is_read(cli, patients, command, name):
    ran = cli(
        command, "--dataset", f"{patients},{name}", "--backbone", "pixels", "--group-column", "p"
    )
    assert ran.code == 2
    assert "--group-column p is for folders of images, whose splits are still to be" in ran.err
    assert not (patients / ".medplus-cache").exists()


def test_a_run_keeps_the_patient_of_every_image(patients, cli, tmp_path):
    words = ("--dataset", str(patients), "--backbone", "pixels", "--store", str(tmp_path / "e"))
    [store] = cli("extract", *words, "--size", "6", "--json").document["stores"]
    [run] = medplus.knn(store["path"], 1, runs=tmp_path / "runs", device="cpu")
    kept = read_predictions(Path(run.path))
    for split in ("val", "test"):
        images = [int(Path(name).stem) for name in kept[f"{split}_name"]]
        assert kept[f"{split}_group"].tolist() == [f"p{i // 4}" for i in images]
    assert run.metrics["test"]["n_groups"] == len(set(kept["test_group"]))
