"""The linear-probe protocol on embedding stores: all heads at once, one record per head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from medplus.config import ConvexRecipe, ProbeRecipe, Solver, head_recipe
from medplus.cost import measure_cost
from medplus.device import check_device_name, resolve_device
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError
from medplus.heads.folded import Made, Plan, Run
from medplus.heads.stored import Stores, input_tensors, plan_head, read_splits, run_heads
from medplus.naming import counted
from medplus.progress import Progress, silent
from medplus.run.folds import Folds
from medplus.run.plan import RunPlan
from medplus.run.record import RunRecord
from medplus.run.scoring import EVALUATED, score_splits
from medplus.vocabulary import MULTI_LABEL


def probe(
    stores: Stores,
    seeds: int | Sequence[int] | None = None,
    *,
    lr: float | Sequence[float] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int | None = None,
    strength: float | Sequence[float] | None = None,
    recipe: str = "paper",
    device: str = "auto",
    runs: str | Path = "runs",
    overwrite: bool = False,
    exclude: str | Path | None = None,
    folds: Folds | None = None,
    progress: Progress = silent,
) -> list[RunRecord]:
    """Train linear heads on stored embeddings; one record per store, seed, lr and weight decay.

    The ``paper`` recipe: AdamW with lr 1e-4 and weight decay 0.01, batches of 64, at most 100
    epochs on a cosine schedule, stopped after 5 epochs without a better val loss; cross-entropy,
    or binary cross-entropy per label; the head of the best val loss is evaluated. ``grid`` tries
    13 learning rates. ``lbfgs`` and ``ridge`` have a unique optimum, which they find, for 13
    strengths of the penalty: multinomial logistic regression (scikit-learn's C), and ridge
    regression onto the classes in closed form (its alpha), calibrated on val; they hold all
    embeddings of a store in memory. Embeddings are those of the network in eval mode: frozen means
    frozen (the paper's code leaves it in train mode, where batch-norm statistics drift and dropout
    is on).

    Parameters
    ----------
    stores : EmbeddingStore, path, or several of them
    seeds, lr, weight_decay : number or sequence of numbers, optional
        All combinations are trained at once; by default the recipe's.
    epochs, batch_size, patience : int, optional
        By default the recipe's.
    strength : float or sequence of float, optional
        Of ``lbfgs`` and ``ridge``, which take nothing of the above.
    recipe : {"paper", "grid", "lbfgs", "ridge"}
    device, runs, overwrite, exclude, folds
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

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [(run.seed, run.lr) for run in medplus.probe(store, seeds=1, lr=[0.001, 0.01])]
    [(1, 0.001), (1, 0.01)]
    """
    check_device_name(device)
    full = head_recipe(
        recipe, seeds=seeds, lr=lr, weight_decay=weight_decay, epochs=epochs,
        batch_size=batch_size, patience=patience, strength=strength,
    )  # fmt: skip
    plan: Plan
    run: Run
    if isinstance(full, ConvexRecipe):
        plan = partial(_plan_convex, recipe=full, runs=runs)
        run = partial(_run_convex, solver=full.solver, device=device, progress=progress)
    else:
        plan = partial(_plan, recipe=full, runs=runs)
        run = partial(_run, recipe=full, device=device, progress=progress)
    return run_heads(stores, plan, run, overwrite, exclude, folds=folds)


def _plan(store: EmbeddingStore, recipe: ProbeRecipe, runs: str | Path) -> list[RunPlan]:
    shared = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "patience")}
    plans = []
    for seed, (lr, decay) in dict.fromkeys(product(recipe.seeds, recipe.settings)):
        fields = {"seed": seed, "lr": lr, "weight_decay": decay}
        name = f"seed{seed}-lr{lr:g}-wd{decay:g}-ep{recipe.epochs}"
        plans.append(plan_head(store, "probe", name, {**fields, **shared}, fields, runs))
    return plans


def _run(
    store: EmbeddingStore,
    plans: list[RunPlan],
    recipe: ProbeRecipe,
    device: str,
    progress: Progress,
) -> Iterator[Made]:
    import torch

    from medplus.heads.probe.feed import make_feeds
    from medplus.heads.probe.stack import train_heads

    target = resolve_device(device)
    info = store.info
    multi_label = info.task == MULTI_LABEL
    splits = read_splits(store)
    of = [plan.fields for plan in plans]
    todo = [(it["seed"], it["lr"], it["weight_decay"]) for it in of]
    # The smallest grid that spans what is left to do; its heads beyond that are not recorded.
    seeds = tuple(dict.fromkeys(seed for seed, _, _ in todo))
    settings = tuple(dict.fromkeys((lr, wd) for _, lr, wd in todo))
    with measure_cost(target) as meter:
        feeds = make_feeds({split: data.embeddings for split, data in splits.items()}, target)
        labels = {split: torch.from_numpy(splits[split].labels).to(target) for split in splits}
        what = f"{info.dataset} {info.size} px · {info.backbone} · {counted(len(todo), 'head')}"
        with progress(what, recipe.epochs, "epoch") as advance:
            heads = train_heads(
                (feeds["train"], labels["train"]),
                (feeds["val"], labels["val"]),
                len(info.classes),
                recipe,
                multi_label=multi_label,
                seeds=seeds,
                settings=settings,
                advance=advance,
            )
        if not torch.isfinite(heads.val_loss).all():
            raise RunError(
                f"{store.path}: the val loss is not finite from the first epoch on; use a smaller "
                "--lr"
            )
        scores = {s: heads.scores(feeds[s], multi_label).cpu().numpy() for s in EVALUATED}
    cost = {**meter.cost(), "shared_by": len(todo)}
    for plan, (seed, lr, wd) in zip(plans, todo, strict=True):
        at = (seeds.index(seed), settings.index((lr, wd)))
        own = {split: scores[split][at] for split in EVALUATED}
        metrics, predictions = score_splits(splits, own, info.task)
        metrics["val"]["loss"] = float(heads.val_loss[at])
        of_epochs = {name: int(getattr(heads, name)[at]) for name in ("epochs_run", "best_epoch")}
        record = plan.record(metrics, meter.seconds, cost, **of_epochs)
        head = {"weight": heads.weight[at], "bias": heads.bias[at]}  # as `nn.Linear` names them
        tensors = {name: tensor.cpu().contiguous().numpy() for name, tensor in head.items()}
        yield record, predictions, tensors | input_tensors(store)


def _plan_convex(store: EmbeddingStore, recipe: ConvexRecipe, runs: str | Path) -> list[RunPlan]:
    """Return the plan of every strength; see `medplus.probe`."""
    return [
        plan_head(store, "probe", f"{recipe.solver}-{strength:g}", fields, fields, runs)
        for strength in dict.fromkeys(recipe.strength)
        for fields in [{"solver": recipe.solver, "strength": strength}]
    ]


def _run_convex(
    store: EmbeddingStore, plans: list[RunPlan], solver: Solver, device: str, progress: Progress
) -> Iterator[Made]:
    """Find the heads of some plans."""
    from medplus.heads.probe.convex import calibrated, scores_of, solve

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
