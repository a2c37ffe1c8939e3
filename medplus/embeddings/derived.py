"""Embeddings that are made of others when they are read: joined, or transformed, without a forward.

All that is fitted is fitted on train alone, and uses no label.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medplus.datasets.exclusion import Exclusion
from medplus.embeddings import view
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.layout import CHUNK_ROWS
from medplus.embeddings.store import Damage, EmbeddingStore
from medplus.embeddings.view import View
from medplus.errors import UsageError
from medplus.jsonfile import digest_of
from medplus.vocabulary import Split

if TYPE_CHECKING:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

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


class DerivedStore(EmbeddingStore):
    """One store or several of the same images, read as one.

    Embeddings of several stand side by side, each dimension with the mean 0 and the standard
    deviation 1 that it has on train. They are held in memory once they are read.

    Parameters
    ----------
    parts : sequence of EmbeddingStore
    transform : Transform, optional

    Raises
    ------
    UsageError
        If the stores are not of the same images, or have too few dimensions or rows.
    """

    def __init__(self, parts: Sequence[EmbeddingStore], transform: Transform | None = None) -> None:
        first = parts[0].info
        for part in parts[1:]:
            own = (part.info.dataset_digest, part.info.size, part.info.n_samples)
            if own != (first.dataset_digest, first.size, first.n_samples):
                raise UsageError(
                    f"{part.path} is not of the same images as {parts[0].path}; join stores of one "
                    "dataset at one size"
                )
        self.parts, self.transform = tuple(parts), transform
        self.path = parts[0].path
        self._read_before: dict[Split, np.ndarray] = {}
        self._check_components()
        self.info = self._describe()

    def __repr__(self) -> str:
        return f"DerivedStore({self.info.backbone!r}: dim {self.info.dim})"

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings are made of: the parts' keys, and the transform."""
        keys = [
            f"{part.key}/{part.digest}" if isinstance(part, View) else part.key
            for part in self.parts
        ]
        return {"parts": keys, "transform": None if self.transform is None else str(self.transform)}

    def on_rows(self, rows: Mapping[Split, np.ndarray]) -> DerivedStore:
        """Return the same of some rows: fitted on what is train among them."""
        return DerivedStore([View(part, rows) for part in self.parts], self.transform)

    def embeddings(self, split: Split) -> np.ndarray:
        """Return a split's embeddings, float32, shape (n_samples, dim)."""
        if split not in self._read_before:
            values = self._joined(split)
            if self._components is not None:
                values = self._components.transform(values)
            elif self.transform is not None:
                norms = np.linalg.norm(values, axis=1, keepdims=True)
                values = values / np.where(norms == 0, 1, norms)
            self._read_before[split] = np.ascontiguousarray(values, np.float32)
        return self._read_before[split]

    def visit(
        self,
        split: Split,
        visit: Callable[[slice, np.ndarray], None],
        rows: slice = slice(None),
    ) -> None:
        """Show a split's embeddings in parts, as `EmbeddingStore.visit` does."""
        values = self.embeddings(split)
        start, stop, _ = rows.indices(len(values))
        for at in range(start // CHUNK_ROWS * CHUNK_ROWS, stop, CHUNK_ROWS):
            part = values[at : at + CHUNK_ROWS]
            visit(slice(at, at + len(part)), part)

    def labels(self, split: Split) -> np.ndarray:
        """Return a split's labels, integer, shape (n_samples, n_labels)."""
        return self.parts[0].labels(split)

    def index(self, split: Split) -> np.ndarray:
        """Return each row's position in the source split, int64, shape (n_samples,)."""
        return self.parts[0].index(split)

    def names(self, split: Split) -> list[str]:
        """Return where each row came from; unknown is empty."""
        return self.parts[0].names(split)

    def groups(self, split: Split) -> list[str]:
        """Return what each row belongs to; none where that is not known."""
        return self.parts[0].groups(split)

    def verify(self) -> list[Damage]:
        """Check every byte of all parts."""
        return [damage for part in self.parts for damage in part.verify()]

    def _check_components(self) -> None:
        most = min(sum(part.info.dim for part in self.parts), self.parts[0].info.n_samples["train"])
        if self.transform is not None and (self.transform.n or 0) > most:
            raise UsageError(
                f"--transform {self.transform} asks for more components than {self.path} has "
                f"dimensions or train rows; use at most pca:{most}"
            )

    def _describe(self) -> StoreInfo:
        infos = [part.info for part in self.parts]
        first = infos[0]
        suffix = "" if self.transform is None else f"@{self.transform}"
        name, tag = (
            "+".join(getattr(info, field) for info in infos) + suffix
            for field in ("backbone", "tag")
        )
        digests = {
            field: digest_of({"of": [getattr(info, field) for info in infos], **self.identity})
            for field in ("weights_sha256", "backbone_digest")
        }
        weights = dict.fromkeys(info.weights for info in infos)
        licences = dict.fromkeys(info.weights_licence for info in infos)
        return first.model_copy(
            update={
                **digests,
                "spec": replace(first.spec, **self._choices(), backbone=name, dtype="float32"),
                "backbone": name,
                "tag": tag,
                "weights": "+".join(weights),
                "weights_licence": "; ".join(filter(None, licences)),
                "key": digest_of(self.identity),
                "dim": self._dim(),
            }
        )

    def _choices(self) -> dict[str, Any]:
        """Return what parts were made with: of raw pixels, some choices mean nothing."""
        specs = [part.info.spec for part in self.parts]
        told = {
            field: [value for spec in specs if (value := getattr(spec, field)) is not None]
            for field in ("weights", "fit", "feature", "precision")
        }
        return {field: values[0] for field, values in told.items() if values}

    def _dim(self) -> int:
        if self.transform is not None and self.transform.kind == "pca":
            assert self.transform.n is not None
            return self.transform.n
        if self._components is not None:
            return int(self._components.n_components_)
        return sum(part.info.dim for part in self.parts)

    def _joined(self, split: Split) -> np.ndarray:
        read = [part.embeddings(split).astype(np.float32) for part in self.parts]
        if len(read) == 1:
            return read[0]
        return np.hstack([s.transform(x) for s, x in zip(self._scalers, read, strict=True)])

    @cached_property
    def _scalers(self) -> list[StandardScaler]:
        from sklearn.preprocessing import StandardScaler

        return [StandardScaler().fit(part.embeddings("train")) for part in self.parts]

    @cached_property
    def _components(self) -> PCA | None:
        from sklearn.decomposition import PCA

        if self.transform is None or self.transform.kind == "l2":
            return None
        train = self._joined("train").astype(np.float64)
        solver = "covariance_eigh" if len(train) > train.shape[1] else "full"
        whiten = self.transform.kind == "whiten"
        fitted = PCA(self.transform.n, whiten=whiten, svd_solver=solver).fit(train)
        if not whiten:
            return fitted
        variance = fitted.explained_variance_
        count = int((variance > _NO_VARIANCE * variance[0]).sum())
        return PCA(count, whiten=True, svd_solver=solver).fit(train)


def view_of(store: EmbeddingStore, rows: Mapping[Split, np.ndarray]) -> EmbeddingStore:
    """Return some rows of a store, with all that is fitted fitted on its new train."""
    return store.on_rows(rows) if isinstance(store, DerivedStore) else View(store, rows)


def without(store: EmbeddingStore, exclusion: Exclusion) -> EmbeddingStore:
    """Return a store without the rows that are left out, which nothing is fitted on either."""
    if isinstance(store, DerivedStore):
        return DerivedStore([view.without(p, exclusion) for p in store.parts], store.transform)
    return view.without(store, exclusion)
