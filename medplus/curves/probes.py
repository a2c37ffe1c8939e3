"""Probes on subsets of train: all of one size as one stack, tuned without a look at test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from medplus.config import ProbeRecipe
from medplus.curves.points import Data, Point, Subsets, Tune, inner_folds
from medplus.heads.probe.stack import train_heads
from medplus.heads.probe.trained import TrainedHeads
from medplus.metrics.ranking import auc_per_class
from medplus.progress import Advance
from medplus.run.scoring import EVALUATED

_STACK_BYTES = 1 << 28  # weights, their copies and val scores of the heads that train together
_COPIES = 6


@dataclass(frozen=True)
class _Job:
    """A seed on a subset; `held` are rows of train that it is judged on."""

    at: int
    seed: int
    rows: np.ndarray
    held: np.ndarray | None = None


def probe_points(
    data: Data, backbone: str, subsets: Subsets, recipe: ProbeRecipe, tune: Tune, advance: Advance
) -> list[Point]:
    """Train probes on every subset with every seed; the learning rate is chosen per head.

    Parameters
    ----------
    data : Data
    subsets : mapping of (episode, amount) to ndarray of int64
    recipe : ProbeRecipe
    tune : {"val", "shots"}
        ``val``: stopped by the val loss and chosen by val accuracy, as `medplus.probe` is.
        ``shots``: stratified folds within the subset choose by the mean loss of what they hold
        out, and all epochs are made; val takes no part.
    advance : callable
        Told of each point.

    Returns
    -------
    list of Point
        In the order of subsets and seeds.
    """
    keys = [(where, seed) for where in subsets for seed in recipe.seeds]
    jobs = [_Job(i, seed, subsets[where]) for i, (where, seed) in enumerate(keys)]
    chosen = _choose_by_folds(data, jobs, recipe) if tune == "shots" else None
    points: dict[int, Point] = {}
    for some, heads in _train(data, jobs, recipe, by_val=tune == "val"):
        best = (
            _choose_by_val(data, heads)
            if chosen is None
            else torch.tensor([chosen[job.at] for job in some])
        )
        own = _one_setting(heads, best)
        scores = {split: _scores(data, own, data.embeddings[split]) for split in EVALUATED}
        for i, job in enumerate(some):
            episode, amount = keys[job.at][0]
            acc = {split: data.accuracy(split, scores[split][i, 0]) for split in scores}
            lr, _ = recipe.settings[int(best[i])]
            points[job.at] = Point(
                backbone, "probe", amount, episode, job.seed, lr, None, acc["val"], acc["test"],
                job.rows,
            )  # fmt: skip
            advance(1)
    return [points[i] for i in range(len(jobs))]


def _train(
    data: Data, jobs: Sequence[_Job], recipe: ProbeRecipe, *, by_val: bool
) -> Iterator[tuple[list[_Job], TrainedHeads]]:
    """Train jobs with equally many rows together, as many as memory allows."""
    device = torch.device(data.device)
    x, y = (torch.from_numpy(part["train"]).to(device) for part in (data.embeddings, data.labels))
    val = tuple(torch.from_numpy(part["val"]).to(device) for part in (data.embeddings, data.labels))
    dim, n_val = x.shape[1], len(val[0])
    nbytes = 4 * len(recipe.settings) * data.n_classes * (_COPIES * (dim + 1) + n_val)
    together = max(1, _STACK_BYTES // nbytes)
    for length in sorted({len(job.rows) for job in jobs}):
        alike = [job for job in jobs if len(job.rows) == length]
        for start in range(0, len(alike), together):
            some = alike[start : start + together]
            yield (
                some,
                train_heads(
                    (x, y),
                    (val[0], val[1]) if by_val else None,
                    data.n_classes,
                    recipe,
                    multi_label=data.multi_label,
                    seeds=[job.seed for job in some],
                    rows=torch.from_numpy(np.stack([job.rows for job in some])),
                ),
            )


def _scores(data: Data, heads: TrainedHeads, x: np.ndarray) -> np.ndarray:
    on_device = torch.from_numpy(np.ascontiguousarray(x)).to(data.device)
    return heads.scores(on_device, data.multi_label).cpu().numpy()


def _choose_by_val(data: Data, heads: TrainedHeads) -> torch.Tensor:
    """Return each job's best setting: by val accuracy, then AUC, then order, as runs are marked."""
    scores = _scores(data, heads, data.embeddings["val"])
    usable = torch.isfinite(heads.val_loss).cpu().numpy()
    best = []
    for own, finite in zip(scores, usable, strict=True):
        acc = [data.accuracy("val", s) if ok else -1.0 for s, ok in zip(own, finite, strict=True)]
        best.append(_first_best(acc, partial(_auc, data, own)))
    return torch.tensor(best)


def _first_best(merits: Sequence[float], second: Callable[[int], float]) -> int:
    tied = [i for i, merit in enumerate(merits) if merit == max(merits)]
    return tied[0] if len(tied) == 1 else max(tied, key=second)  # max keeps the first of equals


def _auc(data: Data, scores: np.ndarray, setting: int) -> float:
    auc = float(auc_per_class(data.labels["val"], scores[setting], data.task).mean())
    return auc if np.isfinite(auc) else -1.0


def _one_setting(heads: TrainedHeads, chosen: torch.Tensor) -> TrainedHeads:
    """Return of each seed the chosen setting alone."""
    seeds = torch.arange(len(chosen), device=heads.weight.device)
    at = seeds, chosen.to(heads.weight.device)
    return replace(heads, weight=heads.weight[at][:, None], bias=heads.bias[at][:, None])


def _choose_by_folds(data: Data, jobs: Sequence[_Job], recipe: ProbeRecipe) -> list[int]:
    """Return the setting with the least loss on rows of the subset that it did not learn from."""
    parts = [
        _Job(job.at, job.seed, job.rows[kept], job.rows[held])
        for job in jobs
        for kept, held in inner_folds(data.labels["train"][job.rows], data.multi_label)
    ]
    losses = np.zeros((len(jobs), len(recipe.settings)))
    for some, heads in _train(data, parts, recipe, by_val=False):
        for i, part in enumerate(some):
            assert part.held is not None
            own = replace(heads, weight=heads.weight[i : i + 1], bias=heads.bias[i : i + 1])
            scores = _scores(data, own, data.embeddings["train"][part.held])[0]
            losses[part.at] += _loss(data, scores, data.labels["train"][part.held])
    return [int(i) for i in np.where(np.isfinite(losses), losses, np.inf).argmin(1)]


def _loss(data: Data, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each setting's scores, summed over rows, shape (n_settings,)."""
    tiny = np.finfo(np.float32).tiny
    if data.multi_label:
        right = np.where(labels.astype(bool), scores, 1 - scores)
        return np.asarray(-np.log(np.maximum(right, tiny)).mean(2).sum(1))
    right = scores[:, np.arange(len(labels)), labels[:, 0]]
    return np.asarray(-np.log(np.maximum(right, tiny)).sum(1))
