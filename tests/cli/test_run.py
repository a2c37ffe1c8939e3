"""`medplus run`: the reference's config file and flags, done as the plain commands do it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import click
import pytest

from medplus.cli.main import medplus
from medplus.cli.run import run as run_command
from medplus.datasets.phantom import write_phantom
from medplus.errors import UsageError
from medplus.reference import run_reference

DOCS = Path(__file__).parents[2] / "docs/coming-from-the-reference.md"
CONFIG = """
# Fixed Parameters
data_path: 'images'  # Where the dataset is stored
output_path: 'results'  # Where the trained model shall be stored.
epochs: 1  # How many epochs to train for.
learning_rate: 0.001  # Learning rate
batch_size: 12  # Batch size for the training.
batch_size_eval: 8  # Batch size for the evaluation.
device: 'cpu'  # Which device to run the computations on.

# Modifiable Parameters
dataset: 'breastmnist'
img_size: 28
training_procedure: 'kNN'
architecture: 'resnet18'
k:
seed: 115149041
"""
README = """
# Fixed Parameters
data_path: # Where the dataset is stored (' ')
output_path: # Where the trained model shall be stored. (' ')
epochs: # How many epochs to train for. (100)
learning_rate: # Learning rate (0.0001)
batch_size: # Batch size for the training. (64)
batch_size_eval: # Batch size for the evaluation. (256)
device: # Which device to run the computations on. ('cuda:0')

# Modifiable Parameters
dataset: # Which dataset to use. ('bloodmnist', 'breastmnist', 'chestmnist', 'dermamnist', 'octmnist', 'organamnist', 'organcmnist', 'organsmnist', 'pathmnist', 'pneumoniamnist', 'retinamnist', 'tissuemnist')
img_size: # Height and width of the input image. (28, 64, 128, 224)
training_procedure: # Which training procedure to use. ('endToEnd', 'linearProbing', 'kNN')
architecture: # Which model to use. ('vgg16', 'alexnet', 'resnet18', 'densenet121', 'efficientnet_b4', 'vit_base_patch16_224', 'vit_base_patch16_clip_224', 'eva02_base_patch16_clip_224', 'vit_base_patch16_224.dino', 'samvit_base_patch16')
k: # Number of neighbors for the kNN.
seed: # Seed for random operations for reproducibility. (9930641, 115149041, 252139603)
"""  # noqa: E501 - as the reference's README has it
KEYS = [line.partition(":")[0] for line in README.splitlines() if line[:1].islower()]
CHOICE = (
    "--dataset", "bloodmnist", "--img_size", "224", "--training_procedure", "endToEnd",
    "--architecture", "vgg16",
)  # fmt: skip
NAMES = ("--dataset", "breastmnist", "--size", "28", "--backbone", "resnet18")
PLAIN = ("--device", "cpu", "--runs", "plain", "--json")
TRAINING = ("--seed", "115149041", "--lr", "0.001", "--epochs", "1", "--batch-size", "12")


@pytest.fixture
def config(tmp_path: Path, fast_disk: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A filled-in config file of the reference, beside a small dataset."""
    monkeypatch.chdir(tmp_path)
    write_phantom("breastmnist", 28, tmp_path / "images", samples=24)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(cli: Callable, config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that does a run from the config file and returns its record."""
    from medplus.training import folder

    def draw(path: Path, rows: object, title: str) -> None:
        path.write_bytes(b"a picture")  # drawing takes longer than this training

    monkeypatch.setattr(folder, "draw_learning_curve", draw)

    def do(*flags: object) -> dict[str, Any]:
        ran = cli("run", "--config_file", "./config.yaml", *flags, "--weights", "none", "--json")
        assert ran.code == 0, ran.err
        [record] = ran.document["runs"]
        return dict(record)

    return do


def plain(cli: Callable, *arguments: object) -> dict[str, Any]:
    ran = cli(*arguments)
    assert ran.code == 0, ran.err
    [record] = ran.document["runs"]
    return dict(record)


def result(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a record what tells of where and when it was made."""
    kept = {k: v for k, v in record.items() if k not in ("path", "seconds", "cost", "created")}
    if "store" in kept:
        kept["store"] = {k: v for k, v in kept["store"].items() if k != "path"}
    return kept


# --- the three procedures -----------------------------------------------------------------------


def test_knn_and_linear_probing_are_extract_then_knn_and_probe(cli: Callable, run: Callable):
    neighbours, again = run(), run()
    head = run("--training_procedure", "linearProbing")
    extraction = ("--weights", "none", "--precision", "fp32", "--fit", "pad", "--batch-size", "8")
    where = ("--device", "cpu", "--data-root", "images", "--store", "elsewhere", "-q")
    assert cli("extract", *NAMES, *extraction, *where).code == 0

    plain_knn = plain(cli, "knn", *NAMES, "--k", "11", "--store", "elsewhere", *PLAIN)
    plain_probe = plain(cli, "probe", *NAMES, *TRAINING, "--store", "elsewhere", *PLAIN)

    assert result(neighbours) == result(plain_knn)
    assert result(head) == result(plain_probe)
    assert (neighbours["protocol"], neighbours["k"]) == ("knn", 11)
    assert (head["protocol"], head["seed"], head["lr"]) == ("probe", 115149041, 0.001)
    assert head["config"]["batch_size"] == 12
    assert again == neighbours  # seconds and all: the same record, not one made again
    assert Path("results") in Path(neighbours["path"]).parents
    assert len(list(Path("embeddings").rglob("*.zarr"))) == 1  # shared by both


@pytest.mark.extensive
@pytest.mark.slow
def test_end_to_end_is_finetune(cli: Callable, run: Callable):
    record = run("--training_procedure", "endToEnd")
    again = run("--training_procedure", "endToEnd")
    options = ("--weights", "none", "--recipe", "paper", "--data-root", "images")

    trained = plain(cli, "finetune", *NAMES, *options, *TRAINING, *PLAIN, "-q")

    assert result(record) == result(trained)
    assert record["config"]["recipe"]["lr"] == 0.001
    assert again == record
    assert not Path("embeddings").exists()


def test_overwrite_does_the_run_again(run: Callable) -> None:
    first = run("--architecture", "pixels")
    again = run("--architecture", "pixels", "--overwrite")

    assert again["seconds"] != first["seconds"]
    assert result(again) == result(first)


# --- flags and what is shown --------------------------------------------------------------------


def test_flags_win_over_the_file_in_either_spelling(run: Callable) -> None:
    flags = ("--architecture", "pixels", "--k", "3")
    assert run(*flags)["k"] == 3
    assert Path("other") in Path(run(*flags, "--output_path", "other")["path"]).parents
    assert Path("third") in Path(run(*flags, "--output-path", "third")["path"]).parents


def test_table_on_stdout_and_progress_on_stderr(cli: Callable, config: Path) -> None:
    flags = ("--config", config, "--architecture", "pixels", "--data-path", "images")

    loud = cli("run", *flags)
    quiet = cli("run", *flags, "--overwrite", "-q")

    assert loud.code == quiet.code == 0
    assert "test ACC" in loud.out
    assert "Records: results" in loud.out
    assert "breastmnist 28 px · pixels" in loud.err
    assert quiet.err == ""


def test_a_local_npz_file_without_a_config_file(cli: Callable, write_npz: Callable) -> None:
    write_npz("toy", folder=Path.cwd())
    choice = ("--dataset", "toy.npz", "--training_procedure", "kNN", "--architecture", "pixels")

    [record] = cli("run", *choice, "--json").document["runs"]

    assert (record["dataset"], record["size"], record["k"]) == ("toy", 8, 11)
    assert Path("runs") in Path(record["path"]).parents


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--architecture", "resnet19"), "unknown backbone 'resnet19'; did you mean 'resnet18'?"),
        (("--img_size", "32"), "breastmnist has no size 32; MedMNIST+ has 28, 64, 128 and 224"),
        (("--dataset", "toymnist"), "unknown dataset 'toymnist'"),
        (("--device", "cuda:99"), "device 'cuda:99' is not there"),
        (("--img-sice", "28"), "--img-size"),
        (("--config", "no.yaml"), "the config file no.yaml does not exist"),
        (("--store",), "--store"),
    ],
)
def test_wrong_usage_is_one_sentence(
    flags: tuple[str, ...], says: str, cli: Callable, config: Path
) -> None:
    ran = cli("run", "--config", "config.yaml", *flags)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert not Path("results").exists()


def test_nothing_said_at_all(cli: Callable) -> None:
    ran = cli("run")

    assert ran.code == 2
    assert "Missing option '--dataset'" in ran.err


def test_data_that_are_not_there(cli: Callable, config: Path) -> None:
    ran = cli("run", "--config", "config.yaml", "--img_size", "64")

    assert ran.code == 1
    assert "breastmnist_64.npz" in ran.err


# --- the page -----------------------------------------------------------------------------------


def in_code(text: str) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize(
    "line", [line for line in in_code(DOCS.read_text()) if line.startswith("medplus ")]
)
def test_every_command_line_of_the_page_parses(line: str, config: Path) -> None:
    _, name, *arguments = shlex.split(line)
    context = click.Context(medplus, **medplus.context_settings)
    command = medplus.get_command(context, name)
    assert command is not None

    assert command.make_context(name, arguments, parent=context).params


def test_the_page_shows_the_references_own_command() -> None:
    theirs, ours = in_code(DOCS.read_text())[:2]

    assert theirs.removeprefix("python main.py ") == ours.removeprefix("medplus run ")


def test_the_page_maps_every_key_once() -> None:
    keys = DOCS.read_text().partition("## Keys of")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", keys, flags=re.MULTILINE)

    assert [key for key, _ in rows] == KEYS
    for key, default in rows:
        own = signature(run_reference).parameters[key].default
        if default == "must be given":
            assert own in (Parameter.empty, None)
        elif own is not None:
            assert default.split(",")[0].split(":")[0].strip("`") == str(own)


def test_every_key_is_a_flag_in_both_spellings() -> None:
    flags = {option for parameter in run_command.params for option in parameter.opts}

    for key in KEYS:
        assert {f"--{key}", f"--{key.replace('_', '-')}"} <= flags


# --- the config file ----------------------------------------------------------------------------


def read(text: str, *flags: str) -> dict[str, Any]:
    """Return the parameters of the command, given a config file and flags."""
    Path("own.yaml").write_text(text)
    context = click.Context(medplus, **medplus.context_settings)
    arguments = ["--config_file", "own.yaml", *flags]
    return run_command.make_context("run", arguments, parent=context).params


def test_the_readmes_example_gives_nothing(config: Path) -> None:
    assert read(README, *CHOICE) == read("", *CHOICE)


def test_a_file_filled_in_is_read_and_flags_win_over_it(config: Path) -> None:
    found = read(CONFIG.replace("'cpu'", "' '"), "--seed", "0")
    assert {key: found[key] for key in KEYS} == {
        "data_path": Path("images"), "output_path": Path("results"), "epochs": 1,
        "learning_rate": 0.001, "batch_size": 12, "batch_size_eval": 8, "device": "auto",
        "dataset": "breastmnist", "img_size": 28, "training_procedure": "kNN",
        "architecture": "resnet18", "k": 11, "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("image_size: 28", "own.yaml: unknown key 'image_size'; did you mean 'img_size'?"),
        ("training_procedure: knn", "own.yaml: 'training_procedure': 'knn' is not one of"),
        ("seed: -1", "own.yaml: 'seed': -1 "),
        ("learning_rate: 0", "own.yaml: 'learning_rate': 0"),
        ("seed: [1, 2]", "own.yaml: 'seed' takes one value, not [1, 2]"),
        ("dataset: no", "own.yaml: 'dataset' takes text or a number, but YAML reads its value"),
        ("architecture: own.py", "say --architecture own.py"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(line: str, says: str, config: Path) -> None:
    key = line.partition(":")[0]
    lines = [one for one in CONFIG.splitlines() if not one.startswith(f"{key}:")]
    with pytest.raises(UsageError, match=re.escape(says)):
        read("\n".join([*lines, line]))


def test_a_flag_of_medmnist_needs_a_size(cli: Callable, config: Path) -> None:
    config.write_text(CONFIG.replace("img_size: 28", "img_size:"))
    assert (
        "breastmnist has four sizes; say which with --img_size"
        in cli("run", "--config", config).err
    )
