"""The reference's config: what is read from it, what is refused, and what a run is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.config import FinetuneRecipe, KnnRecipe, ProbeRecipe
from medplus.errors import UsageError
from medplus.reference import ReferenceConfig, read_reference, run_reference
from medplus.spec import ExtractSpec

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
FILLED_IN = """
# Fixed Parameters
data_path: ' '  # Where the dataset is stored
output_path: 'out'  # Where the trained model shall be stored.
epochs: 7  # How many epochs to train for.
learning_rate: 1e-3  # Learning rate
batch_size: 32  # Batch size for the training.
batch_size_eval: 256  # Batch size for the evaluation.
device: 'cpu'  # Which device to run the computations on.

# Modifiable Parameters
dataset: 'bloodmnist'  # Which dataset to use.
img_size: 64  # Height and width of the input image.
training_procedure: 'endToEnd'  # Which training procedure to use.
architecture: 'vgg16'  # Which model to use.
k: 5  # Number of neighbors for the kNN.
seed: 115149041  # Seed for random operations for reproducibility.
"""
CHOICE: dict[str, Any] = {
    "dataset": "bloodmnist",
    "img_size": "224",
    "training_procedure": "endToEnd",
    "architecture": "vgg16",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Return a function that writes ``config.yaml`` into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        Path("config.yaml").write_text(text, encoding="utf-8")
        return "config.yaml"

    return write


def refusal(path: str | None, **flags: Any) -> str:
    with pytest.raises(UsageError) as error:
        read_reference(path, **flags)
    return str(error.value)


# --- what is read -------------------------------------------------------------------------------


def test_the_readmes_example_parses_and_gives_nothing(config: Callable) -> None:
    assert read_reference(config(README), **CHOICE) == read_reference(None, **CHOICE)


def test_the_readmes_example_names_every_key_of_the_model() -> None:
    keys = [line.partition(":")[0] for line in README.splitlines() if line[:1].islower()]

    assert keys == list(ReferenceConfig.model_fields)


def test_a_file_filled_in_is_read_key_by_key(config: Callable) -> None:
    assert read_reference(config(FILLED_IN)).model_dump() == {
        "data_path": Path("data"), "output_path": Path("out"), "epochs": 7, "learning_rate": 1e-3,
        "batch_size": 32, "batch_size_eval": 256, "device": "cpu", "dataset": "bloodmnist",
        "img_size": 64, "training_procedure": "endToEnd", "architecture": "vgg16", "k": 5,
        "seed": 115149041,
    }  # fmt: skip


def test_what_is_not_given_is_the_papers() -> None:
    read = read_reference(None, **CHOICE)

    recipe = FinetuneRecipe()
    assert (read.epochs, read.learning_rate) == (recipe.epochs, recipe.lr)
    assert read.batch_size == recipe.batch_size == ProbeRecipe().batch_size
    assert (read.k,) == KnnRecipe().k
    assert read.seed == ProbeRecipe().seeds[0]
    assert (read.data_path, read.output_path) == (Path("data"), Path("runs"))
    assert (read.device, read.batch_size_eval) == ("auto", None)


def test_flags_win_over_the_file_but_blank_ones_do_not(config: Callable) -> None:
    read = read_reference(config(FILLED_IN), seed="0", k="", device=None, architecture="alexnet")

    assert (read.seed, read.k, read.device, read.architecture) == (0, 5, "cpu", "alexnet")
    assert read.dataset == "bloodmnist"


def test_a_flag_mends_what_is_wrong_in_the_file(config: Callable) -> None:
    path = config(FILLED_IN.replace("vgg16", "vgg_16"))

    assert read_reference(path, architecture="vgg16").architecture == "vgg16"


def test_an_npz_file_has_its_own_size(config: Callable) -> None:
    read = read_reference(None, **CHOICE | {"dataset": "my/own.npz", "img_size": None})

    assert (read.dataset, read.img_size) == ("my/own.npz", None)
    assert read_reference(None, **CHOICE | {"dataset": "own.npz", "img_size": "32"}).img_size == 32


def test_any_timm_name_is_an_architecture() -> None:
    assert read_reference(None, **CHOICE | {"architecture": "test_vit"}).architecture == "test_vit"


# --- what is refused ----------------------------------------------------------------------------


def test_an_unknown_key_names_file_and_nearest_key(config: Callable) -> None:
    message = refusal(config(FILLED_IN.replace("img_size:", "image_size:")))

    assert message.startswith(
        "config.yaml: unknown key 'image_size'; did you mean 'img_size'? (known: data_path, "
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("architecture", "resnet19", "unknown backbone 'resnet19'; did you mean 'resnet18'?"),
        ("dataset", "bloodmnst", "unknown dataset 'bloodmnst'; did you mean 'bloodmnist'?"),
        ("training_procedure", "knn", "'endToEnd', 'linearProbing' or 'kNN'; did you mean 'kNN'?"),
        ("img_size", "32", "= 32: MedMNIST+ has 28, 64, 128 and 224"),
        ("img_size", "big", "= 'big': "),
        ("seed", "-1", "= "),
        ("seed", str(2**63), "= "),
        ("epochs", "0", "= "),
        ("batch_size", "0", "= "),
        ("batch_size_eval", "0", "= "),
        ("k", "0", "= "),
        ("learning_rate", "0", "= "),
        ("learning_rate", ".nan", "= "),
    ],
)
def test_a_bad_value_names_where_it_stands(
    key: str, value: str, says: str, config: Callable
) -> None:
    lines = [line for line in FILLED_IN.splitlines() if not line.startswith(f"{key}:")]
    in_file = refusal(config("\n".join([*lines, f"{key}: {value}"])))
    as_flag = refusal(config(FILLED_IN), **{key: math.nan if value == ".nan" else value})

    assert in_file.startswith(f"config.yaml: {key}")
    assert as_flag.startswith(f"--{key}")
    assert says in in_file
    assert says in as_flag


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: [1, 2]", "config.yaml: seed takes one value, not [1, 2]; do one run for each"),
        ("k: {a: 1}", "config.yaml: k takes one value"),
        ("dataset: no", "config.yaml: dataset takes text or a number, but YAML reads its value"),
    ],
)
def test_a_file_that_says_something_else(text: str, says: str, config: Callable) -> None:
    assert says in refusal(config(text))


@pytest.mark.parametrize("missing", CHOICE)
def test_what_is_missing_is_named_with_the_flag_that_gives_it(
    missing: str, config: Callable
) -> None:
    flags = {key: value for key, value in CHOICE.items() if key != missing}

    assert refusal(config(README), **flags) == (
        f"config.yaml gives no {missing}; add it there, or say --{missing}"
    )
    assert refusal(None, **flags).startswith(f"--{missing} must be given")


def test_what_is_wrong_is_told_before_what_is_missing() -> None:
    assert refusal(None, epochs="0").startswith("--epochs = '0'")


# --- what a run is made of ----------------------------------------------------------------------

OWN = {
    "data_path": "d", "output_path": "r", "epochs": 3, "learning_rate": 0.5, "batch_size": 9,
    "batch_size_eval": 7, "device": "cpu", "dataset": "toy.npz", "architecture": "pixels", "k": 2,
    "seed": 4,
}  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Return a list that is told what is asked of the library, which does nothing."""
    import medplus.embeddings.extract
    import medplus.heads.knn
    import medplus.heads.probe
    import medplus.training

    told: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Stored:
        store = "the store"

    def remember(name: str, result: Any) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            told.append((name, given, more))
            return [result]

        return call

    for module, name, result in (
        (medplus.embeddings.extract, "extract_all", Stored()),
        (medplus.heads.knn, "knn", "neighbours"),
        (medplus.heads.probe, "probe", "head"),
        (medplus.training, "finetune", "network"),
    ):
        monkeypatch.setattr(module, name, remember(name, result))
    return told


EXTRACTED = (
    "extract_all",
    ([ExtractSpec("toy.npz", None, "pixels", "none", "pad", precision="fp32")],),
    {"batch_size": 7, "device": "cpu", "data_root": Path("d"), "store": "s"},
)  # fmt: skip
WHERE = {"device": "cpu", "runs": Path("r"), "overwrite": True}
RECIPE = {"recipe": "paper", "epochs": 3, "lr": 0.5, "batch_size": 9}
ASKED = {
    "kNN": ("neighbours", [EXTRACTED, ("knn", ("the store", 2), WHERE)]),
    "linearProbing": ("head", [EXTRACTED, ("probe", ("the store", 4), WHERE | RECIPE)]),
    "endToEnd": (
        "network",
        [
            (
                "finetune",
                ("toy.npz", None, "pixels", 4),
                WHERE | RECIPE | {"fit": "pad", "weights": "none", "data_root": Path("d")},
            )
        ],
    ),
}


@pytest.mark.parametrize("procedure", ASKED)
def test_every_value_reaches_what_it_is_for(procedure: str, calls: list) -> None:
    config = ReferenceConfig(**OWN, training_procedure=procedure)
    result, expected = ASKED[procedure]

    assert run_reference(config, store="s", weights="none", overwrite=True) == result

    asked = [
        (name, given, {k: v for k, v in more.items() if k not in ("progress", "watch")})
        for name, given, more in calls
    ]
    assert asked == expected


# --- the files of the reference -----------------------------------------------------------------


def test_a_checkpoint_of_the_reference_serves_as_weights(
    write_npz: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    import torch

    from medplus import extract

    monkeypatch.chdir(tmp_path)
    checkpoint = "toy_8_endToEnd_resnet18_s1_best.pth"
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=8).eval()
    torch.save(network.state_dict(), checkpoint)
    npz = write_npz("toy", n=(3, 2, 2), size=8)

    store = extract(str(npz), None, "resnet18", weights=checkpoint, precision="fp32")

    with np.load(npz) as arrays:
        images = torch.from_numpy(arrays["test_images"])
    # As the reference does it: to RGB, / 255, normalised, then padded.
    mean, std = (torch.tensor(network.default_cfg[what]).view(3, 1, 1) for what in ("mean", "std"))
    normalised = (images.unsqueeze(1).expand(-1, 3, -1, -1) / 255 - mean) / std
    padded = torch.nn.functional.pad(normalised, (108, 108, 108, 108))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(padded), pre_logits=True)
    np.testing.assert_allclose(store.embeddings("test"), expected, rtol=1e-4, atol=1e-7)
