"""A run of the reference: what it is made of, and what its files are good for."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.config import FinetuneRecipe, KnnRecipe, ProbeRecipe
from medplus.reference import run_reference
from medplus.spec import ExtractSpec


def test_what_is_not_given_is_the_papers() -> None:
    read = {name: one.default for name, one in signature(run_reference).parameters.items()}

    recipe = FinetuneRecipe()
    assert (read["epochs"], read["learning_rate"]) == (recipe.epochs, recipe.lr)
    assert read["batch_size"] == recipe.batch_size == ProbeRecipe().batch_size
    assert (read["k"],) == KnnRecipe().k
    assert read["seed"] == ProbeRecipe().seeds[0]


OWN = {
    "data_path": Path("d"), "output_path": Path("r"), "epochs": 3, "learning_rate": 0.5,
    "batch_size": 9, "batch_size_eval": 7, "device": "cpu", "dataset": "toy.npz",
    "architecture": "pixels", "k": 2, "seed": 4,
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
    result, expected = ASKED[procedure]
    own = {**OWN, "training_procedure": procedure}

    assert run_reference(**own, store="s", weights="none", overwrite=True) == result

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
