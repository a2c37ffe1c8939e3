"""The commands as a user runs them, one after the other, when all is well."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medplus.seal import seal

NETWORK = "lcnet_035"
SPLITS = ("train", "val", "test")


@pytest.fixture
def toy(write_npz: Callable[..., Path], tmp_path: Path) -> Path:
    return write_npz("toy", folder=tmp_path)


def extract(cli: Callable, *more: object, dataset: str = "toy.npz") -> list[dict[str, Any]]:
    """Extract pixels of a dataset and return what the command says of its stores."""
    arguments = ("--dataset", dataset, "--backbone", "pixels", *more, "--json")
    ran = cli("extract", *arguments)
    assert ran.code == 0, ran.err
    stores: list[dict[str, Any]] = ran.document["stores"]
    return stores


def metrics(ran: Any) -> list[Any]:
    assert ran.code == 0, ran.err
    return [run["metrics"] for run in ran.document["runs"]]


# --- the three commands --------------------------------------------------------------------------

EXTRACTED = {
    "path", "key", "dataset", "size", "backbone", "dim", "splits", "status", "chunks_computed",
    "chunks_reused", "seconds", "images_per_second",
}  # fmt: skip


def test_documents_keep_their_contract(cli: Callable, toy: Path) -> None:
    [stored] = extract(cli)
    selection = ("--dataset", "toy", "--size", "8", "--backbone", "pixels")
    [neighbours] = cli("knn", *selection, "--k", "5", "--json").document["runs"]
    arguments = ("--seed", "7", "--lr", "0.01", "--weight-decay", "0", "--epochs", "2")
    [head] = cli("probe", *selection, *arguments, "--json").document["runs"]

    assert set(stored) == EXTRACTED
    assert stored["splits"] == {"train": 40, "val": 20, "test": 30}
    assert (stored["dim"], stored["status"], stored["chunks_computed"]) == (64, "extracted", 3)
    for record, protocol in ((neighbours, "knn"), (head, "probe")):
        assert record["protocol"] == protocol
        assert (record["dataset"], record["size"], record["backbone"]) == ("toy", 8, "pixels")
        assert record["store"]["key"] == stored["key"]
        assert {"acc", "auc", "balanced_accuracy", "macro_f1", "ece"} <= set(
            record["metrics"]["val"]
        )
        assert {"acc_ci95", "auc_ci95"} <= set(record["metrics"]["test"])
        assert json.loads((Path(record["path"]) / "record.json").read_text())["run_id"] == (
            Path(record["path"]).name
        )
    assert neighbours["k"] == 5
    assert (head["seed"], head["lr"], head["weight_decay"]) == (7, 0.01, 0)
    assert 1 <= head["best_epoch"] <= head["epochs_run"] <= 2


def test_second_call_computes_nothing_and_says_the_same(cli: Callable, toy: Path) -> None:
    first = extract(cli)
    commands = [
        ("knn", "--dataset", "toy", "--backbone", "pixels", "--k", "1,5", "--json"),
        ("probe", "--dataset", "toy", "--backbone", "pixels", "--epochs", "3", "--json"),
    ]
    before = [cli(*command).document for command in commands]
    files = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}

    again = extract(cli)
    after = [cli(*command).document for command in commands]

    assert (again[0]["status"], again[0]["chunks_computed"]) == ("skipped", 0)
    assert (again[0]["key"], again[0]["chunks_reused"]) == (first[0]["key"], 3)
    assert after == before
    assert {p: p.stat().st_mtime_ns for p in Path().rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("command", ["knn --k 1,5", "probe --epochs 3 --seed 1,2 --lr 0.1,0.01"])
def test_overwrite_computes_again_and_gets_the_same_numbers(
    command: str, cli: Callable, toy: Path
) -> None:
    extract(cli)
    arguments = (*command.split(), "--dataset", "toy", "--backbone", "pixels", "--json")
    first = cli(*arguments)
    record = Path(first.document["runs"][0]["path"]) / "record.json"
    made = record.stat().st_mtime_ns

    second = cli(*arguments, "--overwrite")

    assert metrics(second) == metrics(first)
    assert record.stat().st_mtime_ns > made


def test_runs_that_are_missing_are_added_to_those_that_exist(cli: Callable, toy: Path) -> None:
    extract(cli)
    arguments = ("probe", "--dataset", "toy", "--backbone", "pixels", "--epochs", "3", "--json")
    alone = cli(*arguments, "--seed", "2", "--runs", "elsewhere")
    cli(*arguments, "--seed", "1")
    together = cli(*arguments, "--seed", "1,2")

    assert metrics(together)[1] == metrics(alone)[0]


def test_phantom_at_several_sizes_to_knn(cli: Callable) -> None:
    cli("phantom", "--dataset", "chestmnist", "--size", "28,64", "--samples", "60", "--out", "data")
    stored = extract(cli, "--size", "28,64", dataset="chestmnist")
    runs = cli(
        "knn", "--dataset", "chestmnist", "--size", "28,64", "--backbone", "pixels", "--json"
    )

    assert [s["size"] for s in stored] == [28, 64]
    assert [run["n_classes"] for run in runs.document["runs"]] == [14, 14]
    assert all("map" in run["metrics"]["test"] for run in runs.document["runs"])
    shown = cli("knn", "--dataset", "chestmnist", "--size", "28", "--backbone", "pixels").out
    assert "synthetic data" in shown


def test_network_and_pixels_on_one_dataset(cli: Callable, toy: Path) -> None:
    arguments = ("--dataset", "toy.npz", "--backbone", f"pixels,{NETWORK}")
    ran = cli("extract", *arguments, "--weights", "none", "--fit", "native", "--json")

    assert [s["backbone"] for s in ran.document["stores"]] == ["pixels", NETWORK]
    assert cli("knn", *arguments, "--weights", "none").code == 0


def test_stdout_is_for_results_and_stderr_for_the_rest(cli: Callable, toy: Path) -> None:
    ran = cli("extract", "--dataset", "toy.npz", "--backbone", "pixels")

    assert "toy" in ran.out
    assert "img/s" in ran.err
    assert "Error" not in ran.err


@pytest.mark.parametrize("command", ["extract", "knn", "probe --epochs 2", "store ls"])
def test_quiet_is_silent_on_stderr(command: str, cli: Callable) -> None:
    cli("phantom", "--dataset", "breastmnist", "--samples", "60", "--out", "data")
    extract(cli, dataset="breastmnist")
    names = [] if command == "store ls" else ["--dataset", "breastmnist", "--backbone", "pixels"]
    more = ["--store", "fresh"] if command == "extract" else []

    ran = cli(*command.split(), *names, *more, "-q")

    assert ran.code == 0
    assert ran.err == ""
    assert ran.out


def test_verbose_says_what_is_done(cli: Callable, toy: Path) -> None:
    ran = cli("extract", "--dataset", "toy.npz", "--backbone", "pixels", "-v")

    assert "INFO: caching toy.npz" in ran.err


# --- which store is meant ------------------------------------------------------------------------


def flags_of(message: str) -> list[list[str]]:
    """Return the flags that a message about several stores lists, one list per store."""
    lines = [line for line in message.splitlines() if line.startswith("  --")]
    return [shlex.split(line.partition("   (")[0]) for line in lines]


def test_stores_of_two_precisions_are_told_apart_by_the_printed_flags(
    cli: Callable, toy: Path
) -> None:
    names = ("--dataset", "toy.npz", "--backbone", NETWORK, "--weights", "none", "--fit", "native")
    for precision in ("fp32", "bf16"):
        assert cli("extract", *names, "--precision", precision).code == 0

    ambiguous = cli("knn", "--dataset", "toy", "--backbone", NETWORK)
    choices = flags_of(ambiguous.err)

    assert ambiguous.code == 1
    assert ambiguous.err.startswith("Error: 2 stores match toy")
    assert sorted(flags[1] for flags in choices) == ["bf16", "fp32"]
    for flags in choices:
        ran = cli("knn", "--dataset", "toy", "--backbone", NETWORK, *flags, "--json")
        assert ran.document["runs"][0]["spec"]["precision"] == flags[1]
        ran = cli("knn", "--dataset", "toy", "--backbone", NETWORK, *flags[:2], "--json")
        assert ran.document["runs"][0]["spec"]["precision"] == flags[1]


def test_store_is_found_by_name_when_its_file_is_gone(cli: Callable, toy: Path) -> None:
    extract(cli)
    toy.unlink()

    assert cli("knn", "--dataset", "toy", "--backbone", "pixels").code == 0
    assert cli("knn", "--dataset", "toy.npz", "--backbone", "pixels").code == 0


ODD_NAMES = [
    "with space",
    "it's",
    'say "hi"',
    "ünï→code",
    "a,b",
    "$HOME;ls",
    "[b] :x: []",
    "-dash",
    "x" * 100,
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_names(
    name: str, cli: Callable, write_npz: Callable[..., Path], tmp_path: Path
) -> None:
    write_npz(name, folder=tmp_path)
    [stored] = extract(cli, dataset=f"./{name}.npz")
    (Path(stored["path"]) / "train/embeddings/c/0/0").unlink()
    remedy = cli("store", "verify", "--json").document["stores"][0]["remedy"]
    words = shlex.split(remedy[remedy.index("medplus ") :])

    repaired = cli(*words[1:], "--json").document["stores"][0]
    [run] = cli("knn", "--dataset", f"./{name}.npz", "--backbone", "pixels", "--json").document[
        "runs"
    ]

    assert (repaired["status"], repaired["key"]) == ("resumed", stored["key"])
    assert not set(" '\"$;,\\") & set(stored["path"] + run["path"])
    assert Path(run["path"]).is_relative_to("runs")
    assert run["dataset"] == name


# --- looking after stores ------------------------------------------------------------------------


@pytest.fixture
def store(cli: Callable, toy: Path) -> Path:
    return Path(extract(cli)[0]["path"])


def test_info_shows_the_key_in_clear(cli: Callable, store: Path) -> None:
    document = cli("store", "info", store, "--json").document
    shown = json.loads(cli("store", "info", store).out)

    assert document["spec"]["backbone"] == "pixels"
    assert document["complete"] is True
    assert shown["chunks"] == {
        f"{split}/{kind}": 1
        for split in SPLITS
        for kind in ("embeddings", "labels", "index", "names")
    }


def test_ls_lists_complete_incomplete_and_damaged_stores(
    cli: Callable, store: Path, write_npz: Callable[..., Path]
) -> None:
    for seed, name in enumerate(("half", "broken"), 5):
        write_npz(name, seed=seed, folder=Path.cwd())
        extract(cli, dataset=f"{name}.npz")
    [half] = Path("embeddings/half/8").iterdir()
    [broken] = Path("embeddings/broken/8").iterdir()
    document = json.loads((half / "zarr.json").read_text())
    attributes = {**document["attributes"]["medplus"], "complete": False}
    del attributes["seal"]
    document["attributes"]["medplus"] = seal(attributes)
    (half / "zarr.json").write_text(json.dumps(document))
    (broken / "zarr.json").write_text("{}")

    listed = cli("store", "ls", "--json").document["stores"]
    shown = cli("store", "ls").out

    assert {row["path"]: row["status"] for row in listed} == {
        str(store): "complete", str(half): "incomplete", str(broken): "damaged",
    }  # fmt: skip
    assert "complete" in shown
    assert f"medplus store rm {broken}" in shown


def test_ls_of_nothing(cli: Callable) -> None:
    assert cli("store", "ls", "--json").document == {"stores": []}
    assert "no stores under embeddings" in cli("store", "ls").out


def test_verify_of_intact_stores(cli: Callable, store: Path) -> None:
    ran = cli("store", "verify")

    assert ran.code == 0
    assert ran.out.split() == ["intact", str(store)]


@pytest.mark.parametrize("part", ["train/embeddings/c/0/0", "val/labels/c/0/0", "test/zarr.json"])
@pytest.mark.parametrize("within", [False, True])
def test_verify_finds_damage_and_its_command_repairs_it(
    part: str, within: bool, cli: Callable, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: path.read_bytes() for path in store.rglob("c/*/*")}
    damaged = store / part
    damaged.write_bytes(damaged.read_bytes()[:-2])
    with monkeypatch.context() as patch:
        if within:  # named from where it lies
            patch.chdir(store.parent)
        ran = cli("store", "verify", store.name if within else store)

    assert ran.code == 1
    assert part.rpartition("/c/")[0].removesuffix("/zarr.json") in ran.out
    command = ran.out[ran.out.index("medplus extract") :].splitlines()[0]
    assert cli(*shlex.split(command)[1:]).code == 0
    assert cli("store", "verify").code == 0
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("n", False), ("", False)])
def test_rm_asks(
    answer: str, removed: bool, cli: Callable, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))

    ran = cli("store", "rm", store, "--json")

    assert ran.code == 0
    assert ran.document == {"removed": [str(store)] if removed else []}
    assert store.exists() is not removed


def test_rm_refuses_where_nobody_can_answer(
    cli: Callable, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO())

    ran = cli("store", "rm", store)

    assert ran.code == 2
    assert "--yes" in ran.err
    assert store.exists()


def test_rm_with_yes(cli: Callable, store: Path, leftovers: Callable) -> None:
    assert cli("store", "rm", store, "--yes").code == 0
    assert not store.exists()
    assert leftovers(Path()) == []


# --- configuration files -------------------------------------------------------------------------


def test_defaults_then_config_then_flags(cli: Callable, store: Path) -> None:
    Path("knn.yaml").write_text("dataset: toy\nbackbone: [pixels]\nk: [1, 3]\nmetric: cosine\n")

    from_file = cli("knn", "--config", "knn.yaml", "--json").document["runs"]
    with_flags = cli("knn", "--config", "knn.yaml", "--k", "5", "--json").document["runs"]

    assert [(r["k"], r["metric"], r["vote"]) for r in from_file] == [
        (1, "cosine", "majority"), (3, "cosine", "majority"),
    ]  # fmt: skip
    assert [(r["k"], r["metric"]) for r in with_flags] == [(5, "cosine")]


# --- as a process --------------------------------------------------------------------------------


def medplus(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medplus", *arguments],
        capture_output=True, text=True, check=False, timeout=120, **more,
    )  # fmt: skip


def test_a_process_of_its_own_prints_one_document(toy: Path) -> None:
    arguments = ("extract", "--dataset", "toy.npz", "--backbone", "pixels", "--json")
    done = medplus(*arguments, cwd=toy.parent)

    assert done.returncode == 0
    assert json.loads(done.stdout)["stores"][0]["status"] == "extracted"


@pytest.mark.parametrize("command", ["store ls", "store ls --json", "--help"])
def test_a_reader_that_leaves_early_is_no_error(command: str, store: Path, cli: Callable) -> None:
    shell = f"{shlex.quote(sys.executable)} -m medplus {command} | head -c 1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert len(done.stdout) == 1


def test_ascii_terminal(store: Path, cli: Callable) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    names = ("--dataset", "toy", "--backbone", "pixels", "--k", "1,3")
    done = medplus("knn", *names, env=environment)

    assert done.returncode == 0
    assert done.stdout.isascii()


HEAVY = {
    "torch", "timm", "numpy", "pandas", "pydantic", "rich", "zarr", "faiss", "medmnist", "yaml",
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "needs"),
    [("--help", ""), ("--version", ""), ("xtract", ""), ("report --help", ""),
     ("run --help", "pydantic")],
)  # fmt: skip
def test_help_imports_nothing_heavy(command: str, needs: str) -> None:
    program = f"""
import sys
from medplus.cli import main
try:
    main({command.split()!r})
except SystemExit:
    loaded = {HEAVY - {needs}!r} & set(sys.modules)
    sys.exit(f"imported {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["knn"], ["probe", "--seed", "1", "--epochs", "2"]])
def test_what_is_done_is_told_without_torch(store: Path, cli: Callable, command: list[str]) -> None:
    arguments = [*command, "--dataset", "toy", "--backbone", "pixels", "--json"]
    first = cli(*arguments).document
    program = f"""
import sys
from medplus.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    loaded = [name for name in ("torch", "faiss", "timm", "zarr") if name in sys.modules]
    sys.exit(f"imported {{loaded}}" if loaded else end.code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == first
