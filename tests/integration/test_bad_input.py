"""Everything that can be wrong with what a command is given: one message, a remedy, nothing lost.

Each message names the file, key or flag at fault; the exit code is 1 for what the world lacks and 2
for what the user mistyped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def toy(write_npz: Callable[..., Path], tmp_path: Path) -> Path:
    """A small dataset in the working directory."""
    return write_npz("toy", folder=tmp_path)


@pytest.fixture
def store(cli: Callable, toy: Path) -> Path:
    """A complete store of it."""
    ran = cli("extract", "--dataset", "toy.npz", "--backbone", "pixels", "--json")
    return Path(ran.document["stores"][0]["path"])


def run_printed(cli: Callable, message: str) -> Any:
    """Run the `medplus …` command that a message ends with, as if it were pasted into a shell."""
    return cli(*shlex.split(message[message.index("medplus ") :])[1:], "--json")


# --- the dataset's file --------------------------------------------------------------------------


def with_arrays(**changed: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with np.load(path) as archive:
            arrays = dict(archive) | changed
        np.savez(path, **arrays)

    return change


ZEROS = np.zeros
BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-20]), ("truncated",)),
    "rows disagree": (
        with_arrays(train_labels=ZEROS((39, 1), np.uint8)),
        ("train_labels has 39 rows", "train_images 40"),
    ),
}
"""Two of many faults; `tests/datasets/test_npz.py` has them all."""


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_file_is_named(fault: str, fails: Callable, toy: Path) -> None:
    spoil, says = BROKEN[fault]
    spoil(toy)

    fails(
        "extract", "--dataset", "toy.npz", "--backbone", "pixels", code=1, says=("toy.npz", *says)
    )

    assert not Path("embeddings").exists()


def test_missing_file_is_named(fails: Callable) -> None:
    fails(
        "extract", "--dataset", "no/toy.npz", "--backbone", "pixels", code=1, says=("no/toy.npz",)
    )


def test_missing_official_file_comes_with_its_address(fails: Callable, toy: Path) -> None:
    fails(
        "extract", "--dataset", "breastmnist", "--backbone", "pixels", code=1,
        says=("breastmnist.npz does not exist", "--data-root", "https://", "medplus phantom"),
    )  # fmt: skip


# --- names ---------------------------------------------------------------------------------------

UNKNOWN = {
    "size": ("--dataset breastmnist --size 32 --backbone pixels", "no size 32"),
    "size of a file": ("--dataset toy.npz --size 28 --backbone pixels", "images of 8 px"),
    "dataset": ("--dataset brestmnist --backbone pixels", "did you mean 'breastmnist'"),
    "backbone": ("--dataset toy.npz --backbone resnet19", "did you mean 'resnet18'"),
    "weights' tag": ("--dataset toy.npz --backbone resnet18.a1_in2k", "did you mean 'resnet18.a1"),
    "device": ("--dataset toy.npz --backbone pixels --device gpu", "unknown device 'gpu'"),
    "absent device": ("--dataset toy.npz --backbone pixels --device cuda:99", "cuda:99"),
    "name in another encoding": ("--dataset caf\udce9.npz --backbone pixels", "not valid UTF-8"),
    "nothing": ("--backbone pixels", "--dataset"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_wrong_usage_of_extract(what: str, fails: Callable, toy: Path) -> None:
    arguments, says = UNKNOWN[what]

    fails("extract", *arguments.split(), code=2, says=(says,))


def test_names_are_checked_before_any_work(cli: Callable, toy: Path) -> None:
    ran = cli("extract", "--dataset", "toy.npz,brestmnist", "--backbone", "pixels")

    assert ran.code == 2
    assert not Path("embeddings").exists()


@pytest.mark.parametrize("command", ["knn", "probe"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--dataset toi --backbone pixels", "did you mean 'toy'"),
        ("--dataset toy --backbone pixls", "did you mean 'pixels'"),
    ],
)
def test_unknown_name_where_a_store_is_sought(
    command: str, arguments: str, says: str, fails: Callable, store: Path
) -> None:
    fails(command, *arguments.split(), code=2, says=(says,))


# --- weights -------------------------------------------------------------------------------------


def test_no_network(toy: Path, tmp_path: Path) -> None:
    backbone = "hf-hub:nobody/nothing"
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path / "hub")}
    keep = {name: v for name, v in os.environ.items() if not name.lower().endswith("_proxy")}

    done = subprocess.run(
        [sys.executable, "-m", "medplus", "extract", "--dataset", toy, "--backbone", backbone],
        capture_output=True, text=True, cwd=tmp_path, env=keep | offline, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "--weights" in done.stderr


# --- the disk ------------------------------------------------------------------------------------

FULL_DISK = {
    "an npz": ("store export {store} out.npz", 4_000),
    "a parquet file": ("store export {store} out.parquet", 1_000),
    "a phantom": ("phantom --dataset breastmnist --samples 60 --out ph", 1_000),
}
"""Commands that `tests/faults/test_disk.py` does not try."""


@pytest.mark.parametrize("what", FULL_DISK)
def test_full_disk_loses_nothing(
    what: str, fails: Callable, cli: Callable, store: Path, files_up_to: Callable
) -> None:
    command, limit = FULL_DISK[what]
    arguments = command.format(store=store).split()

    with files_up_to(limit):
        fails(*arguments, code=1, says=("File too large",))

    assert cli(*arguments).code == 0


EXTRACT = "extract --dataset toy.npz --backbone pixels"
TOY = "--dataset toy --backbone pixels"
PHANTOM = "phantom --dataset breastmnist --samples 60"
UNREACHABLE = {
    "store's root is a file": (f"{EXTRACT} --store toy.npz", 2, "toy.npz"),
    "store's root is in a file": (f"{EXTRACT} --store toy.npz/in", 1, "toy.npz/in"),
    "no place for the store": (f"{EXTRACT} --store /proc/x", 1, "/proc/x"),
    "runs' root is a file": (f"knn {TOY} --runs toy.npz", 2, "toy.npz"),
    "no place for runs": (f"knn {TOY} --runs /proc/x", 1, "/proc/x"),
    "no place for probes": (f"probe {TOY} --epochs 1 -q --runs /proc/x", 1, "/proc/x"),
    "no place for the export": ("store export {store} /proc/x/y.npz", 1, "/proc/x/y.npz"),
    "no place for phantoms": (f"{PHANTOM} --out /proc/x", 1, "/proc/x"),
    "no place for the preview": (f"{PHANTOM} --out ph --preview /proc/x/y.png", 1, "/proc/x"),
    "no place for the quickstart": ("quickstart --out /proc/x -q", 1, "/proc/x"),
    "no such root": (f"knn {TOY} --store nowhere", 1, "nowhere"),
}


@pytest.mark.parametrize("what", UNREACHABLE)
def test_unreachable_place(what: str, fails: Callable, store: Path) -> None:
    command, code, place = UNREACHABLE[what]

    fails(*command.format(store=store).split(), code=code, says=(place,))


# --- stores --------------------------------------------------------------------------------------


def test_damaged_store_is_refused_and_the_printed_command_repairs_it(
    fails: Callable, cli: Callable, store: Path
) -> None:
    chunk = store / "test/embeddings/c/0/0"
    intact = chunk.read_bytes()
    chunk.write_bytes(bytes(len(intact)))

    message = fails(
        "knn", "--dataset", "toy", "--backbone", "pixels", code=1, says=(str(store), "repairs")
    )
    repaired = run_printed(cli, message).document["stores"][0]

    assert (repaired["status"], repaired["chunks_computed"]) == ("resumed", 1)
    assert chunk.read_bytes() == intact
    assert cli("knn", "--dataset", "toy", "--backbone", "pixels").code == 0


def test_incomplete_store_is_refused_and_the_printed_command_completes_it(
    fails: Callable, cli: Callable, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("medplus.embeddings.writer.StoreWriter.finish", interrupt)
        assert cli("extract", "--dataset", "toy.npz", "--backbone", "pixels").code == 130

    message = fails(
        "knn", "--dataset", "toy", "--backbone", "pixels", code=1, says=("3 of 3", "completes")
    )
    done = run_printed(cli, message).document["stores"][0]

    assert (done["status"], done["chunks_reused"]) == ("resumed", 3)
    assert cli("knn", "--dataset", "toy", "--backbone", "pixels").code == 0


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_store_that_lost_its_metadata(fails: Callable, cli: Callable, store: Path) -> None:
    (store / "zarr.json").unlink()

    fails("store", "info", store, code=1, says=(str(store), "medplus store rm"))
    assert cli("extract", "--dataset", "toy.npz", "--backbone", "pixels").code == 0
    assert cli("store", "verify").code == 0


def test_store_of_another_schema(fails: Callable, cli: Callable, store: Path) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["medplus"]["schema_version"] = 99
    (store / "zarr.json").write_text(json.dumps(document))

    fails("store", "info", store, code=1, says=("schema 99", "the version that wrote it"))
    fails(
        "knn", "--dataset", "toy", "--backbone", "pixels",
        code=1, says=("unreadable there: 1", "medplus store verify"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "command", ["store info", "store verify", "store rm --yes", "store export"]
)
def test_no_store_there(command: str, fails: Callable, store: Path) -> None:
    target = ["out.npz"] if command == "store export" else []

    fails(*command.split(), "nowhere", *target, code=1, says=("no embedding store at nowhere",))


def test_rm_checks_all_before_it_deletes_one(fails: Callable, store: Path) -> None:
    fails("store", "rm", store, "nowhere", "--yes", code=1, says=("nowhere",))

    assert store.exists()


def test_damaged_record_is_named_and_overwritten_when_asked(
    fails: Callable, cli: Callable, store: Path
) -> None:
    command = ("knn", "--dataset", "toy", "--backbone", "pixels")
    [run] = cli(*command, "--json").document["runs"]
    (Path(run["path"]) / "record.json").write_text('{"schema_version": 1')

    fails(*command, code=1, says=(f"{run['path']}/record.json is damaged", "delete"))
    assert cli(*command, "--overwrite", "--json").document["runs"][0]["metrics"] == run["metrics"]


# --- what is to be learned -----------------------------------------------------------------------


def test_k_beyond_the_train_split(fails: Callable, store: Path) -> None:
    fails(
        "knn", "--dataset", "toy", "--backbone", "pixels", "--k", "1,41",
        code=1, says=(str(store), "k = 41", "40 rows", "smaller k"),
    )  # fmt: skip

    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [("knn --k 0", "--k"), ("probe --lr nan", "lr = nan"), ("probe --recipe papr", "papr")],
)
def test_impossible_recipe(command: str, says: str, fails: Callable, store: Path) -> None:
    fails(*command.split(), "--dataset", "toy", "--backbone", "pixels", code=2, says=(says,))


def test_diverged_probe(fails: Callable, store: Path) -> None:
    fails(
        "probe", "--dataset", "toy", "--backbone", "pixels", "--lr", "1e38", "--epochs", "2", "-q",
        code=1, says=(str(store), "smaller --lr"),
    )  # fmt: skip

    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["knn", "probe"])
def test_train_split_of_one_class_is_refused(
    command: str, fails: Callable, cli: Callable, toy: Path
) -> None:
    with_arrays(train_labels=ZEROS((40, 1), np.uint8))(toy)
    assert cli("extract", "--dataset", "toy.npz", "--backbone", "pixels").code == 0

    fails(
        command, "--dataset", "toy", "--backbone", "pixels",
        code=1, says=("embeddings/toy", "all 40 train labels are class 0"),
    )  # fmt: skip


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("command", ["knn", "probe --epochs 1 --seed 1"])
def test_scored_split_of_one_class_is_scored_and_its_auc_undefined(
    split: str, command: str, cli: Callable, toy: Path
) -> None:
    with_arrays(**{f"{split}_labels": ZEROS(({"val": 20, "test": 30}[split], 1), np.uint8)})(toy)
    assert cli("extract", "--dataset", "toy.npz", "--backbone", "pixels").code == 0
    arguments = [*command.split(), "--dataset", "toy", "--backbone", "pixels"]

    shown = cli(*arguments)
    record = cli(*arguments, "--json").document["runs"][0]

    assert shown.code == 0
    assert f"{split} split lacks positives or negatives" in shown.out
    assert record["metrics"][split]["auc"] is None
    assert 0 <= record["metrics"][split]["acc"] <= 1


@pytest.mark.parametrize("command", ["knn", "probe"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_stored_nan_is_refused(
    command: str, split: str, fails: Callable, write_store: Callable, tmp_path: Path
) -> None:
    values = {s: np.ones((20, 3), np.float32) for s in ("train", "val", "test")}
    values[split][7, 1] = np.nan
    labels = {s: np.arange(20) % 3 for s in values}
    write_store(values, labels, root=tmp_path / "embeddings")

    fails(
        command, "--dataset", "toy", "--backbone", "toynet",
        code=1, says=("embeddings/toy", f"1 embeddings of {split} are not finite", "row 7"),
    )  # fmt: skip


# --- with --json, too ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        ("extract --dataset no.npz --backbone pixels", "DatasetError", 1),
        ("extract --dataset toy.npz --backbone resnet19", "UsageError", 2),
        ("extract --dataset toy.npz", "MissingParameter", 2),
        ("xtract", "UsageError", 2),
    ],
)
def test_failure_as_json(arguments: str, kind: str, code: int, cli: Callable, toy: Path) -> None:
    ran = cli(*arguments.split(), "--json")

    assert ran.code == code
    assert ran.document["error"]["type"] == kind
    assert ran.err.startswith(f"Error: {ran.document['error']['message']}")
