"""Fine-tuned runs made by hand: a network that is known beside the folder that holds it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medplus.backbones.finetuned import NETWORK_FILE, NetworkDescription, read_description
from medplus.run.ledger import run_folder, save_run
from medplus.run.record import RunRecord
from tests.records import make_record

RUN_ID = "paper-seed1-0123abcd"


@pytest.fixture(scope="session")
def write_finetuned(
    new_folder: Callable[[], Path], write_run: Callable[..., tuple[Path, Any]]
) -> Callable[..., tuple[Path, Any]]:
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
        finished: bool = True,
        config: dict[str, Any] | None = None,
        **fields: Any,
    ) -> tuple[Path, Any]:
        names = classes if isinstance(classes, tuple) else tuple(map(str, range(classes)))
        known = {"run_id": RUN_ID, "dataset": dataset, "classes": names, "epoch": 2, **fields}
        made, network = write_run(backbone, size, channels=channels, **known)
        folder = run_folder(new_folder(), "finetune", dataset, size, backbone, RUN_ID)
        if finished:
            save_run(_record(folder, read_description(made), config or {}), {})
        else:
            folder = folder.with_name(f"{RUN_ID}.partial")
            folder.mkdir(parents=True)
        shutil.copy(made / NETWORK_FILE, folder)
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
