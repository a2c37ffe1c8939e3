"""Heads with a unique optimum on embedding stores: one record per strength of the penalty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medplus.config import ConvexRecipe
from medplus.cost import measure_cost
from medplus.device import resolve_device
from medplus.embeddings.store import EmbeddingStore
from medplus.heads.stored import (
    StoredSplit,
    Stores,
    input_tensors,
    plan_head,
    read_splits,
    run_heads,
)
from medplus.metrics.temperature import fit_temperature
from medplus.progress import Progress
from medplus.run.folds import Folds
from medplus.run.ledger import save_run
from medplus.run.plan import RunPlan
from medplus.run.record import RunRecord
from medplus.run.scoring import EVALUATED, score_splits
from medplus.vocabulary import MULTI_LABEL


def probe_convex(
    stores: Stores,
    recipe: ConvexRecipe,
    device: str,
    runs: str | Path,
    overwrite: bool,
    progress: Progress,
    exclude: str | Path | None,
    folds: Folds | None,
) -> list[RunRecord]:
    """Find the heads of a recipe on some stores; see `medplus.probe`."""

    def plan(store: EmbeddingStore) -> list[RunPlan]:
        return [_plan(store, recipe.solver, one, runs) for one in dict.fromkeys(recipe.strength)]

    def run(store: EmbeddingStore, plans: list[RunPlan]) -> list[RunRecord]:
        return _run(store, recipe.solver, plans, device, overwrite, progress)

    return run_heads(stores, plan, run, overwrite, exclude, folds=folds)


def _plan(store: EmbeddingStore, solver: str, strength: float, runs: str | Path) -> RunPlan:
    fields = {"solver": solver, "strength": strength}
    return plan_head(store, "probe", f"{solver}-{strength:g}", fields, fields, runs)


def _run(
    store: EmbeddingStore,
    solver: str,
    plans: list[RunPlan],
    device: str,
    overwrite: bool,
    progress: Progress,
) -> list[RunRecord]:
    target = resolve_device(device)
    splits = read_splits(store)
    strengths = [plan.fields["strength"] for plan in plans]
    info = store.info
    what = f"{info.dataset} {info.size} px · {info.backbone} · {solver}"
    with (
        measure_cost(target) as meter,
        progress(what, len(strengths), "strength") as advance,
    ):
        heads = _solve(splits["train"], solver, strengths, store, target, advance)
        if solver == "ridge":
            heads = _as_logits(heads, splits["val"], store)
        scores = {split: _scores(heads, splits[split], store) for split in EVALUATED}
    cost = {**meter.cost(), "shared_by": len(plans)}
    records = []
    for at, plan in enumerate(plans):
        own = {split: scores[split][at] for split in EVALUATED}
        metrics, predictions = score_splits(splits, own, info.task)
        record = plan.record(metrics, meter.seconds, cost)
        tensors = {name: np.ascontiguousarray(tensor[at]) for name, tensor in heads.items()}
        save_run(record, predictions, tensors | input_tensors(store), overwrite=overwrite)
        records.append(record)
    return records


Heads = Mapping[str, np.ndarray]
"""``weight`` (n_heads, n_classes, dim) and ``bias`` (n_heads, n_classes), as in `nn.Linear`."""


def _solve(
    train: StoredSplit,
    solver: str,
    strengths: list[float],
    store: EmbeddingStore,
    device: Any,
    advance: Any,
) -> Heads:
    import torch
    import torch.nn.functional as F  # noqa: N812

    from medplus.heads.probe.convex import logistic_heads, ridge_heads

    multi_label = store.info.task == MULTI_LABEL
    labels = torch.from_numpy(train.labels).to(device)
    classes = len(store.info.classes)
    targets = labels.float() if multi_label else F.one_hot(labels[:, 0].long(), classes).float()
    x = torch.from_numpy(train.embeddings.whole()).to(device)
    if solver == "ridge":
        weight, bias = ridge_heads(x, targets, strengths)
        advance(len(strengths))
    else:
        weight, bias = logistic_heads(
            x, targets, strengths, multi_label=multi_label, advance=advance
        )
    return {"weight": weight.cpu().numpy(), "bias": bias.cpu().numpy()}


def _as_logits(heads: Heads, val: StoredSplit, store: EmbeddingStore) -> Heads:
    """Scale regressions onto 0 and 1 so that their softmax, or sigmoid, is calibrated on val."""
    multi_label = store.info.task == MULTI_LABEL
    weight, bias = heads["weight"].copy(), heads["bias"] - (0.5 if multi_label else 0.0)
    for at, scores in enumerate(_scores({"weight": weight, "bias": bias}, val, store)):
        temperature = fit_temperature(val.labels, scores, store.info.task)
        weight[at], bias[at] = weight[at] / temperature, bias[at] / temperature
    return {"weight": weight, "bias": bias}


def _scores(heads: Heads, split: StoredSplit, store: EmbeddingStore) -> np.ndarray:
    """Return probabilities, float32, shape (n_heads, n_samples, n_classes)."""
    import torch

    from medplus.heads.probe.convex import head_scores

    weight, bias = (torch.from_numpy(heads[name]) for name in ("weight", "bias"))
    x = torch.from_numpy(split.embeddings.whole())
    return head_scores(x, weight, bias, multi_label=store.info.task == MULTI_LABEL).numpy()
