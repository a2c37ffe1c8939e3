"""Heads with a unique optimum on embedding stores: one record per strength of the penalty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medplus.config import ConvexRecipe, Solver
from medplus.cost import measure_cost
from medplus.device import resolve_device
from medplus.embeddings.store import EmbeddingStore
from medplus.heads.folded import Made
from medplus.heads.stored import input_tensors, plan_head, read_splits
from medplus.metrics.temperature import fit_temperature
from medplus.progress import Advance, Progress
from medplus.run.plan import RunPlan
from medplus.run.scoring import EVALUATED, score_splits
from medplus.vocabulary import MULTI_LABEL, Task

if TYPE_CHECKING:
    import torch


def plan_convex(store: EmbeddingStore, recipe: ConvexRecipe, runs: str | Path) -> list[RunPlan]:
    """Return the plan of every strength; see `medplus.probe`."""
    return [
        plan_head(store, "probe", f"{recipe.solver}-{strength:g}", fields, fields, runs)
        for strength in dict.fromkeys(recipe.strength)
        for fields in [{"solver": recipe.solver, "strength": strength}]
    ]


def run_convex(
    store: EmbeddingStore, plans: list[RunPlan], solver: Solver, device: str, progress: Progress
) -> Iterator[Made]:
    """Find the heads of some plans."""
    target = resolve_device(device)
    splits = read_splits(store)
    info = store.info
    recipe = ConvexRecipe(solver=solver, strength=tuple(plan.fields["strength"] for plan in plans))
    what = f"{info.dataset} {info.size} px · {info.backbone} · {solver}"
    x = {split: data.embeddings.whole() for split, data in splits.items()}
    with (
        measure_cost(target) as meter,
        progress(what, len(plans), "strength") as advance,
    ):
        heads = solve(
            x["train"],
            splits["train"].labels,
            recipe,
            len(info.classes),
            multi_label=info.task == MULTI_LABEL,
            device=target,
            advance=advance,
        )
        if solver == "ridge":
            heads = calibrated(heads, x["val"], splits["val"].labels, info.task)
        scores = {split: scores_of(heads, x[split], info.task) for split in EVALUATED}
    cost = {**meter.cost(), "shared_by": len(plans)}
    for at, plan in enumerate(plans):
        own = {split: scores[split][at] for split in EVALUATED}
        metrics, predictions = score_splits(splits, own, info.task)
        tensors = {name: np.ascontiguousarray(tensor[at]) for name, tensor in heads.items()}
        record = plan.record(metrics, meter.seconds, cost)
        yield record, predictions, tensors | input_tensors(store)


Heads = Mapping[str, np.ndarray]
"""``weight`` (n_heads, n_classes, dim) and ``bias`` (n_heads, n_classes), as in `nn.Linear`."""


def solve(
    embeddings: np.ndarray,
    labels: np.ndarray,
    recipe: ConvexRecipe,
    n_classes: int,
    *,
    multi_label: bool,
    device: torch.device,
    advance: Advance = lambda n: None,
) -> Heads:
    """Find the heads of all strengths; those of ``ridge`` are yet to be calibrated.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (n_samples, dim)
    labels : ndarray of int, shape (n_samples, n_labels)
    recipe : ConvexRecipe
    n_classes : int
        Classes, or labels if `multi_label`.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812

    from medplus.heads.probe.convex import logistic_heads, ridge_heads

    y = torch.from_numpy(labels).to(device)
    targets = y.float() if multi_label else F.one_hot(y[:, 0].long(), n_classes).float()
    x = torch.from_numpy(embeddings).to(device)
    if recipe.solver == "ridge":
        weight, bias = ridge_heads(x, targets, recipe.strength)
        advance(len(recipe.strength))
    else:
        weight, bias = logistic_heads(
            x, targets, recipe.strength, multi_label=multi_label, advance=advance
        )
    return {"weight": weight.cpu().numpy(), "bias": bias.cpu().numpy()}


def calibrated(heads: Heads, embeddings: np.ndarray, labels: np.ndarray, task: Task) -> Heads:
    """Scale regressions onto 0 and 1 so that their softmax, or sigmoid, is calibrated on val."""
    weight = heads["weight"].copy()
    bias = heads["bias"] - (0.5 if task == MULTI_LABEL else 0.0)
    raw = {"weight": weight, "bias": bias}
    for at, scores in enumerate(scores_of(raw, embeddings, task)):
        temperature = fit_temperature(labels, scores, task)
        weight[at], bias[at] = weight[at] / temperature, bias[at] / temperature
    return raw


def scores_of(heads: Heads, embeddings: np.ndarray, task: Task) -> np.ndarray:
    """Return probabilities, float32, shape (n_heads, n_samples, n_classes)."""
    import torch

    from medplus.heads.probe.convex import head_scores

    weight, bias = (torch.from_numpy(heads[name]) for name in ("weight", "bias"))
    x = torch.from_numpy(embeddings)
    return head_scores(x, weight, bias, multi_label=task == MULTI_LABEL).numpy()
