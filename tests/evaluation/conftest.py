"""Fine-tuned runs made by hand: a network that is known beside the folder that holds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medplus.backbones.build import load_backbone
from medplus.backbones.finetuned import NETWORK_FILE, NetworkDescription, write_network
from medplus.backbones.head import initial_head
from medplus.run.ledger import run_folder, save_run
from medplus.run.record import RunRecord
from medplus.training.network import Network, embedding_dim
from tests.records import make_record

RUN_ID = "paper-seed1-0123abcd"


@pytest.fixture(scope="session")
def write_finetuned(new_folder: Callable[[], Path]) -> Callable[..., tuple[Path, Network]]:
    """Return a function that writes a finished run of `finetune`, and returns it with its network.

    ``folder, network = write_finetuned("pixels", dataset="toy", size=8, channels=1, classes=3)``;
    `finished=False` gives one under way, without a record; further keywords replace fields of the
    network's description.
    """

    def write(
        backbone: str = "pixels",
        *,
        dataset: str = "toy",
        size: int = 8,
        channels: int = 1,
        classes: int | tuple[str, ...] = 3,
        task: str = "multi-class",
        fit: Any = None,
        finished: bool = True,
        config: dict[str, Any] | None = None,
        **fields: object,
    ) -> tuple[Path, Network]:
        built = load_backbone(backbone, "none", size, fit, frozen=False)
        names = classes if isinstance(classes, tuple) else tuple(map(str, range(classes)))
        shape = (size, size) if channels == 1 else (size, size, channels)
        dim = embedding_dim(built, torch.zeros(shape, dtype=torch.uint8))
        generator = torch.Generator().manual_seed(1)
        head = torch.nn.Linear(dim, len(names))
        weight, bias = initial_head(dim, len(names), generator)
        head.load_state_dict({"weight": weight, "bias": bias})
        with torch.no_grad():  # no longer what it was built as
            for value in built.module.parameters():
                value += (torch.rand(value.shape, generator=generator) - 0.5) / 20
        network = Network(built.module, head).eval()
        description: dict[str, Any] = {
            "run_id": RUN_ID,
            "backbone": built.name,
            "tag": built.tag,
            "weights_sha256": built.weights_sha256,
            "preprocess": vars(built.preprocess),
            "feature": built.feature,
            "dim": dim,
            "dataset": dataset,
            "size": size,
            "task": task,
            "classes": names,
            "epoch": 2,
            "val_loss": 0.5,
            "precision": "fp32",
        }
        known = NetworkDescription(**(description | fields))
        folder = run_folder(new_folder(), "finetune", dataset, size, built.name, RUN_ID)
        if finished:
            save_run(_record(folder, known, config or {}), {})
        else:
            folder = folder.with_name(f"{RUN_ID}.partial")
            folder.mkdir(parents=True)
        write_network(folder / NETWORK_FILE, network.state_dict(), known)
        return folder, network

    return write


def _record(folder: Path, known: NetworkDescription, config: dict[str, Any]) -> RunRecord:
    return make_record(
        protocol="finetune",
        run_id=known.run_id,
        path=str(folder),
        dataset=known.dataset,
        size=known.size,
        backbone=known.backbone,
        tag=known.tag,
        task=known.task,
        classes=list(known.classes),
        licence="CC0",
        seed=1,
        lr=0.01,
        epochs_run=3,
        best_epoch=2,
        metrics={"val": {"acc": 0.125}, "test": {"acc": 0.25}},
        cost={"device": "none"},
        config={"protocol": "finetune", "seed": 1, **config},
    )
