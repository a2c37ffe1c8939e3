"""What is done to embeddings as they are read, and what of it was fitted on train."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medplus.errors import UsageError

_SPELLED = re.compile(r"(?P<pca>pca):(?P<n>[1-9]\d*)|(?P<other>whiten|l2)")
_NO_VARIANCE = 1e-7  # of the largest component's: float32 holds no more


@dataclass(frozen=True)
class Transform:
    """What is done to embeddings as they are read.

    Attributes
    ----------
    kind : {"pca", "whiten", "l2"}
        The first principal components; all that have any variance, scaled to variance 1; or every
        row scaled to length 1.
    n : int or None
        Number of components of ``pca``.
    """

    kind: Literal["pca", "whiten", "l2"]
    n: int | None = None

    @classmethod
    def parse(cls, text: str) -> Transform:
        """Read ``pca:256``, ``whiten`` or ``l2``.

        Raises
        ------
        UsageError
            If it is none of them.

        Examples
        --------
        >>> Transform.parse("pca:256")
        Transform(kind='pca', n=256)
        """
        match = _SPELLED.fullmatch(text)
        if match is None:
            raise UsageError(
                f"--transform '{text}' is none of pca:N (such as pca:256), whiten and l2"
            )
        if match["pca"]:
            return cls("pca", int(match["n"]))
        return cls("whiten" if match["other"] == "whiten" else "l2")

    def __str__(self) -> str:
        return self.kind if self.n is None else f"{self.kind}:{self.n}"


@dataclass(frozen=True)
class Fit:
    """What was fitted on train, so that it can be done to other embeddings as well.

    Attributes
    ----------
    means, scales : tuple of ndarray of float32, shape (dim,)
        Of each of the parts that stand side by side; none of a single one.
    centre : ndarray of float64, shape (dim,), or None
    components : ndarray of float64, shape (n_components, dim), or None
        Principal components, divided by their standard deviation where they whiten.
    """

    means: tuple[np.ndarray, ...] = ()
    scales: tuple[np.ndarray, ...] = ()
    centre: np.ndarray | None = None
    components: np.ndarray | None = None

    @classmethod
    def of(cls, train: Sequence[np.ndarray], transform: Transform | None) -> Fit:
        """Fit on the embeddings of train, one array of each part."""
        from sklearn.preprocessing import StandardScaler

        fitted = [StandardScaler().fit(x) for x in train] if len(train) > 1 else []
        side_by_side = cls(
            tuple(one.mean_.astype(np.float32) for one in fitted),
            tuple(one.scale_.astype(np.float32) for one in fitted),
        )
        if transform is None or transform.kind == "l2":
            return side_by_side
        centre, components = _components(side_by_side.apply(train), transform)
        return cls(side_by_side.means, side_by_side.scales, centre, components)

    def apply(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return embeddings of float32, shape (n_samples, dim), of those of each part."""
        x = parts[0]
        if self.means:
            fitted = zip(parts, self.means, self.scales, strict=True)
            x = np.hstack([(part - mean) / scale for part, mean, scale in fitted])
        if self.centre is None or self.components is None:
            return x
        values = x @ self.components.T - self.centre @ self.components.T
        return np.asarray(values, np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what is kept in a file, by name."""
        found = {f"input.{i}.mean": mean for i, mean in enumerate(self.means)}
        found |= {f"input.{i}.scale": scale for i, scale in enumerate(self.scales)}
        if self.centre is not None and self.components is not None:
            found |= {"input.centre": self.centre, "input.components": self.components}
        return found

    @classmethod
    def read(cls, tensors: Mapping[str, np.ndarray]) -> Fit:
        """Return what `tensors` gave; other names are left alone."""
        count = sum(name.startswith("input.") and name.endswith(".mean") for name in tensors)
        means, scales = (
            tuple(tensors[f"input.{i}.{name}"] for i in range(count)) for name in ("mean", "scale")
        )
        return cls(means, scales, tensors.get("input.centre"), tensors.get("input.components"))


def transformed(parts: Sequence[np.ndarray], fit: Fit, transform: Transform | None) -> np.ndarray:
    """Return embeddings of those of each part, float32, shape (n_samples, dim).

    Parameters
    ----------
    parts : sequence of ndarray of float32, shape (n_samples, dim)
    fit : Fit
        What was fitted for `transform` on train.
    transform : Transform or None
    """
    values = fit.apply(parts)
    if transform is not None and transform.kind == "l2":
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(norms == 0, 1, norms)
    return np.ascontiguousarray(values, np.float32)


def _components(x: np.ndarray, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA

    train = x.astype(np.float64)
    solver = "covariance_eigh" if len(train) > train.shape[1] else "full"
    fitted = PCA(transform.n, svd_solver=solver).fit(train)
    if transform.kind == "pca":
        return fitted.mean_, fitted.components_
    variance = fitted.explained_variance_
    kept = variance > _NO_VARIANCE * variance[0]
    return fitted.mean_, fitted.components_[kept] / np.sqrt(variance[kept, None])
