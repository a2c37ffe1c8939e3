"""The linear-probe protocol on embedding stores: all heads at once, one record per head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medplus.config import ProbeRecipe, probe_recipe
from medplus.cost import measure_cost
from medplus.device import check_device_name, resolve_device
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError
from medplus.heads.probe.grid import HeadGrid
from medplus.heads.stored import Stores, plan_head, read_splits, run_heads
from medplus.progress import Progress, silent
from medplus.runs.ledger import save_run
from medplus.runs.plan import RunPlan
from medplus.runs.record import RunRecord
from medplus.runs.scoring import EVALUATED, score_splits
from medplus.vocabulary import MULTI_LABEL

if TYPE_CHECKING:
    from medplus.heads.probe.stack import TrainedHeads


def probe(
    stores: Stores,
    seeds: int | Sequence[int] | None = None,
    *,
    lr: float | Sequence[float] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int | None = None,
    recipe: str = "paper",
    device: str = "auto",
    runs: str | Path = "runs",
    overwrite: bool = False,
    bootstrap: int | None = None,
    exclude: str | Path | None = None,
    progress: Progress = silent,
) -> list[RunRecord]:
    """Train linear heads on stored embeddings; one record per store, seed, lr and weight decay.

    The ``paper`` recipe: AdamW with lr 1e-4 and weight decay 0.01, batches of 64, at most 100
    epochs on a cosine schedule, stopped after 5 epochs without a better val loss; cross-entropy,
    or binary cross-entropy per label; the head of the best val loss is evaluated. ``grid`` tries
    13 learning rates. Embeddings are those of the network in eval mode: frozen means frozen (the
    paper's code leaves it in train mode, where batch-norm statistics drift and dropout is on).

    Parameters
    ----------
    stores : EmbeddingStore, path, or several of them
    seeds, lr, weight_decay : number or sequence of numbers, optional
        All combinations are trained at once; by default the recipe's.
    epochs, batch_size, patience : int, optional
        By default the recipe's.
    recipe : {"paper", "grid"}
    device, runs, overwrite, bootstrap, exclude
        As for `medplus.knn`.
    progress : Progress
        Where to report epochs.

    Returns
    -------
    list of RunRecord
        In the order of stores, seeds, learning rates, weight decays; `selected` marks the best
        setting per store and seed by val accuracy.

    Raises
    ------
    UsageError, StoreError, RunError
        If an option is not allowed, a store cannot be read, or nothing can be learned from it.
    """
    full = probe_recipe(
        recipe,
        seeds=_tuple(seeds),
        lr=_tuple(lr),
        weight_decay=_tuple(weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
    )
    check_device_name(device)

    def plan(store: EmbeddingStore) -> list[RunPlan]:
        return [_plan(store, full, head, runs) for head in _heads(full)]

    def run(store: EmbeddingStore, plans: list[RunPlan]) -> list[RunRecord]:
        return _run(store, full, plans, device, bootstrap, overwrite, progress)

    return run_heads(stores, plan, run, overwrite, exclude)


_Head = tuple[int, float, float]
"""Seed, learning rate, weight decay."""


def _tuple(value: Any) -> tuple[Any, ...] | None:
    if value is None:
        return None
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _heads(recipe: ProbeRecipe) -> list[_Head]:
    grid = HeadGrid.of(recipe)
    return list(dict.fromkeys((seed, lr, wd) for seed in grid.seeds for lr, wd in grid.settings))


def _plan(store: EmbeddingStore, recipe: ProbeRecipe, head: _Head, runs: str | Path) -> RunPlan:
    seed, lr, weight_decay = head
    fields = {"seed": seed, "lr": lr, "weight_decay": weight_decay}
    shared = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "patience")}
    name = f"seed{seed}-lr{lr:g}-wd{weight_decay:g}-ep{recipe.epochs}"
    return plan_head(store, "probe", name, {**fields, **shared}, fields, runs)


def _run(
    store: EmbeddingStore,
    recipe: ProbeRecipe,
    plans: list[RunPlan],
    device: str,
    bootstrap: int | None,
    overwrite: bool,
    progress: Progress,
) -> list[RunRecord]:
    import torch

    from medplus.heads.probe.feed import make_feeds
    from medplus.heads.probe.stack import train_heads

    target = resolve_device(device)
    info = store.info
    multi_label = info.task == MULTI_LABEL
    splits = read_splits(store)
    todo = [_head(plan) for plan in plans]
    # The smallest grid that spans what is left to do; its heads beyond that are not recorded.
    seeds = tuple(dict.fromkeys(seed for seed, _, _ in todo))
    settings = tuple(dict.fromkeys((lr, wd) for _, lr, wd in todo))
    with measure_cost(target) as meter:
        feeds = make_feeds({split: data.embeddings for split, data in splits.items()}, target)
        labels = {split: torch.from_numpy(splits[split].labels).to(target) for split in splits}
        counted = "1 head" if len(todo) == 1 else f"{len(todo)} heads"
        what = f"{info.dataset} {info.size} px · {info.backbone} · {counted}"
        with progress(what, recipe.epochs, "epoch") as advance:
            heads = train_heads(
                (feeds["train"], labels["train"]),
                (feeds["val"], labels["val"]),
                len(info.classes),
                recipe,
                multi_label=multi_label,
                grid=HeadGrid(seeds, settings),
                advance=advance,
            )
        if not torch.isfinite(heads.val_loss).all():
            raise RunError(
                f"{store.path}: the val loss is not finite from the first epoch on; use a smaller "
                "--lr"
            )
        scores = {s: heads.scores(feeds[s], multi_label).cpu().numpy() for s in EVALUATED}
    cost = {**meter.cost(), "shared_by": len(todo)}
    records = []
    for plan, (seed, lr, wd) in zip(plans, todo, strict=True):
        at = (seeds.index(seed), settings.index((lr, wd)))
        own = {split: scores[split][at] for split in EVALUATED}
        metrics, predictions = score_splits(splits, own, info.task, bootstrap)
        metrics["val"]["loss"] = float(heads.val_loss[at])
        record = plan.record(
            metrics,
            meter.seconds,
            cost,
            epochs_run=int(heads.epochs_run[at]),
            best_epoch=int(heads.best_epoch[at]),
        )
        save_run(record, predictions, _tensors(heads, at), overwrite=overwrite)
        records.append(record)
    return records


def _head(plan: RunPlan) -> _Head:
    return plan.fields["seed"], plan.fields["lr"], plan.fields["weight_decay"]


def _tensors(heads: TrainedHeads, at: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return a head as `nn.Linear` names it: weight (n_classes, dim) and bias (n_classes,)."""
    return {
        "weight": np.ascontiguousarray(heads.weight[at].cpu().numpy()),
        "bias": np.ascontiguousarray(heads.bias[at].cpu().numpy()),
    }
