"""`medplus.probe` as a classifier of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from sklearn.utils.validation import validate_data

from medplus.config import SOLVERS, ConvexRecipe, ProbeRecipe, head_recipe
from medplus.datasets.splits import split
from medplus.device import resolve_device
from medplus.errors import UsageError
from medplus.metrics import accuracy, auc
from medplus.sklearn.classifier import HeadClassifier
from medplus.vocabulary import MULTI_LABEL, PAPER_SEEDS

_BLOCK = 4096  # rows scored at once
Numbers = float | Sequence[float] | None


class LinearProbe(HeadClassifier):
    """A linear head, trained and chosen as `medplus.probe` does.

    Some rows, those of `validation` or a share of what is given to fit, choose among settings and
    stop the training; a head is never trained on them. Where nothing is chosen (``lbfgs`` with one
    strength), all rows are learned from.

    Parameters
    ----------
    recipe : {"paper", "grid", "lbfgs", "ridge"}, default="grid"
        As of `medplus.probe`: AdamW at one learning rate, or at 13 of them, of which val chooses;
        logistic regression or ridge regression to their optimum, at 13 strengths.
    lr, weight_decay : float or sequence of float, optional
        All combinations are trained at once; by default the recipe's.
    epochs, batch_size, patience : int, optional
        By default the recipe's.
    strength : float or sequence of float, optional
        Of ``lbfgs`` (scikit-learn's C) and ``ridge`` (its alpha), which take nothing of the above.
    val_fraction : float, default=0.2
        Share of the rows that choose, stratified by class. With 0 one setting alone is trained,
        for all epochs.
    seed : int, default=9930641
        Of the first weights, the order of the batches, and which rows choose; the paper's first.
    device : str, default="auto"
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Attributes
    ----------
    coef_ : ndarray of float32, shape (n_classes, n_features)
        The weights; two rows, too, where there are two classes.
    intercept_ : ndarray of float32, shape (n_classes,)
    setting_ : dict
        The learning rate and weight decay, or strength, that was chosen, and its ``val_acc``.
    classes_, task_, n_features_in_
        See `HeadClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> head = LinearProbe("lbfgs", strength=1.0).fit(x, np.where(x[:, 0] > 0, "ill", "healthy"))
    >>> head.predict([[-0.5], [0.5]]).tolist()
    ['healthy', 'ill']
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(
        self,
        recipe: str = "grid",
        *,
        lr: Numbers = None,
        weight_decay: Numbers = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        strength: Numbers = None,
        val_fraction: float = 0.2,
        seed: int = PAPER_SEEDS[0],
        device: str = "auto",
    ) -> None:
        self.recipe = recipe
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.strength = strength
        self.val_fraction = val_fraction
        self.seed = seed
        self.device = device

    def fit(
        self, X: ArrayLike, y: ArrayLike, validation: tuple[ArrayLike, ArrayLike] | None = None
    ) -> Self:
        """Train on embeddings, shape (n, dim), and classes, shape (n,), or labels, (n, n_labels).

        Parameters
        ----------
        validation : (X, y), optional
            The rows that choose; by default `val_fraction` of those given.

        Raises
        ------
        ValueError
            If they cannot be used, or are all of one class.
        UsageError
            If a parameter is not allowed.
        """
        recipe = self._recipe()
        rows, labels = self._read(X, y)
        if self.task_ != MULTI_LABEL and len(self.classes_) < 2:
            raise ValueError(f"y has 1 class only, {self.classes_[0]!r}; give at least two classes")
        train, val = (rows, labels), None
        if validation is not None:
            val_rows = validate_data(self, validation[0], reset=False, dtype=np.float32)
            val = val_rows, self._labels_of(validation[1])
        elif self.val_fraction and _chooses(recipe):
            chosen = self._held_out(labels)
            train, val = (rows[~chosen], labels[~chosen]), (rows[chosen], labels[chosen])
        if isinstance(recipe, ProbeRecipe):
            weight, bias, settings = self._gradual(recipe, train, val)
        else:
            weight, bias, settings = self._convex(recipe, train, val)
        merits = [(np.nan, 0.0)] if val is None else [
            self._merit(*head, *val) for head in zip(weight, bias, strict=True)
        ]  # fmt: skip
        best = max(range(len(merits)), key=lambda at: (merits[at], -at))
        self.coef_, self.intercept_ = weight[best], bias[best]
        self.setting_ = {**settings[best], "val_acc": merits[best][0]}
        return self

    def _recipe(self) -> ProbeRecipe | ConvexRecipe:
        if not 0 <= self.val_fraction < 1:
            raise UsageError(f"val_fraction = {self.val_fraction}: it must be from 0 to below 1")
        return head_recipe(
            self.recipe, lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs,
            batch_size=self.batch_size, patience=self.patience, strength=self.strength,
            seeds=None if self.recipe in SOLVERS else self.seed,
        )  # fmt: skip

    def _held_out(self, labels: np.ndarray) -> np.ndarray:
        """Tell which rows choose, bool; of a class with one row none."""
        flags = labels if self.task_ == MULTI_LABEL else np.eye(len(self.classes_))[labels[:, 0]]
        share = self.val_fraction
        chosen: np.ndarray = split(flags.astype(float), None, (1 - share, share), self.seed) == 1
        return chosen

    def _gradual(self, recipe: ProbeRecipe, train: _Rows, val: _Rows | None) -> _Heads:
        import torch

        from medplus.heads.probe.stack import train_heads

        settings = recipe.settings
        if val is None and len(settings) > 1:
            raise UsageError("val_fraction = 0 leaves no rows to choose by; give one learning rate")
        device = resolve_device(self.device)

        def put(part: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.from_numpy(part[0]).to(device), torch.from_numpy(part[1]).to(device)

        heads = train_heads(
            put(train),
            val and put(val),
            len(self.classes_),
            recipe,
            multi_label=self.task_ == MULTI_LABEL,
        )
        told = [{"lr": lr, "weight_decay": decay} for lr, decay in settings]
        weight, bias = heads.weight[0].cpu().numpy(), heads.bias[0].cpu().numpy()
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("the loss is not finite from the first epoch on; use a smaller lr")
        return weight, bias, told

    def _convex(self, recipe: ConvexRecipe, train: _Rows, val: _Rows | None) -> _Heads:
        from medplus.heads.probe.convex import calibrated, solve

        if val is None and _chooses(recipe):
            raise UsageError(
                "val_fraction = 0 leaves no rows to choose by; use lbfgs with one strength"
            )
        heads = solve(
            *train,
            recipe,
            len(self.classes_),
            multi_label=self.task_ == MULTI_LABEL,
            device=resolve_device(self.device),
        )
        if val is not None and recipe.solver == "ridge":
            heads = calibrated(heads, *val, self.task_)
        return heads["weight"], heads["bias"], [{"strength": c} for c in recipe.strength]

    def _merit(
        self, weight: np.ndarray, bias: np.ndarray, X: np.ndarray, labels: np.ndarray
    ) -> tuple[float, float]:
        """Return ACC, and AUC where there is one: the highest is best, as for `medplus.probe`."""
        scores = self._probabilities(X, weight, bias).astype(np.float32)
        area = auc(labels, scores, self.task_)
        return accuracy(labels, scores, self.task_), area if np.isfinite(area) else -1.0

    def _scores(self, X: np.ndarray) -> np.ndarray:
        return self._probabilities(X, self.coef_, self.intercept_)

    def _probabilities(self, X: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return probabilities, float64: the same of a row, whichever rows are beside it."""
        found = np.empty((len(X), len(bias)))
        for start in range(0, len(X), _BLOCK):
            part = slice(start, start + _BLOCK)
            logits = X[part].astype(np.float64) @ weight.T.astype(np.float64) + bias
            found[part] = expit(logits) if self.task_ == MULTI_LABEL else softmax(logits, 1)
        return found


_Rows = tuple[np.ndarray, np.ndarray]
"""Embeddings, float32 (n, dim), and labels, int64 (n, n_labels)."""
_Heads = tuple[np.ndarray, np.ndarray, list[dict[str, float]]]
"""Weights (n_settings, n_classes, dim), biases (n_settings, n_classes), and the settings."""


def _chooses(recipe: ProbeRecipe | ConvexRecipe) -> bool:
    """Tell whether rows are needed that choose, stop the training, or calibrate."""
    if isinstance(recipe, ProbeRecipe):
        return True
    return recipe.solver == "ridge" or len(recipe.strength) > 1
