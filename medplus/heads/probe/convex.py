"""Linear heads whose optimum is unique: found to convergence, for all strengths in one go.

Neither seeds nor learning rates matter here. What is chosen on val is the strength of the penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from medplus.config import ConvexRecipe
from medplus.metrics.temperature import fit_temperature
from medplus.progress import Advance
from medplus.vocabulary import MULTI_LABEL, Task

_DOUBLE_BYTES = 1 << 30
"""Features that take more than this in float64 stay float32."""
_MOST_STEPS = 1000
_HISTORY = 10


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
    weight, bias = (torch.from_numpy(heads[name]) for name in ("weight", "bias"))
    x = torch.from_numpy(embeddings)
    return head_scores(x, weight, bias, multi_label=task == MULTI_LABEL).numpy()


def logistic_heads(
    embeddings: torch.Tensor,
    targets: torch.Tensor,
    strengths: Sequence[float],
    *,
    multi_label: bool = False,
    advance: Advance = lambda n: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return the logistic regressions of all strengths, by L-BFGS [1]_ along the path of C.

    Each minimises, as scikit-learn's ``LogisticRegression(C=C)`` does,

    .. math:: C \sum_i \ell(W x_i + b, y_i) + \tfrac12 \|W\|^2

    and begins where the one before has ended. For several labels the sum is over labels too.

    Parameters
    ----------
    embeddings : Tensor of float32, shape (n_samples, dim)
    targets : Tensor of float32, shape (n_samples, n_classes)
        One-hot, or 0 and 1 per label.
    strengths : sequence of float
        Values of C: the larger, the weaker the penalty.
    multi_label : bool
        Sigmoid cross-entropy per label instead of softmax cross-entropy.
    advance : callable
        Told after every strength.

    Returns
    -------
    weight : Tensor of float32, shape (n_strengths, n_classes, dim)
    bias : Tensor of float32, shape (n_strengths, n_classes)

    References
    ----------
    .. [1] Liu & Nocedal: On the limited memory BFGS method for large scale optimization.
       Mathematical Programming 45, 503-528 (1989).

    Examples
    --------
    >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [3.0]]), torch.tensor([0, 0, 1, 1])
    >>> weight, bias = logistic_heads(x, F.one_hot(y).float(), [1.0])
    >>> (x @ weight[0].T + bias[0]).argmax(1).tolist()
    [0, 0, 1, 1]
    """
    x, y = (_precise(each, embeddings) for each in (embeddings, targets))
    n_classes = y.shape[1]
    head = torch.zeros(n_classes, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    found = {}
    for strength in sorted(set(strengths)):

        def loss(head: torch.Tensor, c: float = strength) -> tuple[torch.Tensor, torch.Tensor]:
            return _penalised_loss(head, x, y, c, multi_label)

        head = _minimum(loss, head)
        found[strength] = head
        advance(1)
    heads = torch.stack([found[strength] for strength in strengths]).float()
    return heads[..., :-1].contiguous(), heads[..., -1].contiguous()


def ridge_heads(
    embeddings: torch.Tensor, targets: torch.Tensor, strengths: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return the ridge regressions of all strengths onto the targets, by one decomposition.

    Each minimises, as scikit-learn's ``Ridge(alpha)`` does,

    .. math:: \|X W^T + b - Y\|^2 + \alpha \|W\|^2 .

    With the eigenvectors V and eigenvalues :math:`\lambda` of the centred :math:`X^T X`, all of
    them are :math:`W^T = V (\lambda + \alpha)^{-1} V^T X^T Y` (Hastie, Tibshirani & Friedman, The
    elements of statistical learning, 2009, eq. 3.47).

    Parameters
    ----------
    embeddings : Tensor of float32, shape (n_samples, dim)
    targets : Tensor of float32, shape (n_samples, n_classes)
    strengths : sequence of float
        Values of alpha: the larger, the stronger the penalty.

    Returns
    -------
    weight : Tensor of float32, shape (n_strengths, n_classes, dim)
    bias : Tensor of float32, shape (n_strengths, n_classes)

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [2.0]])
    >>> weight, bias = ridge_heads(x, 2 * x + 1, [0.0])
    >>> round(weight.item(), 4), round(bias.item(), 4)
    (2.0, 1.0)
    """
    x, y = (_precise(each, embeddings) for each in (embeddings, targets))
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    values, vectors = torch.linalg.eigh((centred.T @ centred).double())
    projected = vectors.T @ (centred.T @ (y - y_mean)).double()
    alphas = torch.tensor(strengths, dtype=torch.float64, device=x.device)
    # What rounding leaves of directions without any spread would be divided by next to nothing.
    least = values.max() * len(values) * torch.finfo(x.dtype).eps
    gains = torch.where(values > least, 1 / (values.clamp_min(least) + alphas[:, None]), 0.0)
    weight = (vectors @ (gains[:, :, None] * projected)).mT
    bias = y_mean - weight @ x_mean.double()
    return weight.float().contiguous(), bias.float()


def head_scores(
    embeddings: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, multi_label: bool
) -> torch.Tensor:
    """Return the probabilities that heads give, shape (n_heads, n_samples, n_classes).

    Parameters
    ----------
    embeddings : Tensor of float32, shape (n_samples, dim)
    weight, bias : Tensor of float32, shapes (n_heads, n_classes, dim) and (n_heads, n_classes)
    multi_label : bool
    """
    logits = torch.einsum("nd,hcd->hnc", embeddings, weight) + bias[:, None]
    return logits.sigmoid() if multi_label else logits.softmax(-1)


def _precise(tensor: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    return tensor.double() if embeddings.numel() * 8 <= _DOUBLE_BYTES else tensor.float()


def _penalised_loss(
    head: torch.Tensor, x: torch.Tensor, y: torch.Tensor, strength: float, multi_label: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss over samples that one head has, and its gradient."""
    weight, bias = head[:, :-1], head[:, -1]
    logits = torch.addmm(bias, x, weight.T)
    if multi_label:
        loss = (F.softplus(logits) - logits * y).sum()
        error = logits.sigmoid() - y
    else:
        loss = (torch.logsumexp(logits, 1) - (logits * y).sum(1)).sum()
        error = logits.softmax(1) - y
    n, penalty = len(x), 1 / strength
    gradient = torch.cat([error.T @ x + penalty * weight, error.sum(0)[:, None]], 1)
    return (loss + 0.5 * penalty * weight.square().sum()) / n, gradient / n


def _minimum(
    loss: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], start: torch.Tensor
) -> torch.Tensor:
    """Return where a smooth, convex loss is least."""
    head = start.clone().requires_grad_()
    tolerance = 1e-8 if head.dtype == torch.float64 else 1e-6
    optimiser = torch.optim.LBFGS(
        [head], max_iter=_MOST_STEPS, history_size=_HISTORY, tolerance_grad=tolerance,
        tolerance_change=math.ulp(1.0), line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        with torch.no_grad():
            value, head.grad = loss(head)
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return head.detach()
