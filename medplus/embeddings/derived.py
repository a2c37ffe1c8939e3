"""Embeddings that are made of others when they are read: joined, or transformed, without a forward.

All that is fitted is fitted on train alone, and uses no label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from medplus.datasets.exclusion import Exclusion
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.layout import CHUNK_ROWS, Visit
from medplus.embeddings.store import Damage, EmbeddingStore
from medplus.embeddings.transform import Fit, Transform, transformed
from medplus.embeddings.view import View
from medplus.errors import UsageError
from medplus.jsonfile import digest_of
from medplus.vocabulary import SPLITS, Split


class DerivedStore(EmbeddingStore):
    """One store or several of the same images, read as one.

    Embeddings of several stand side by side, each dimension with the mean 0 and the standard
    deviation 1 that it has on train. They are held in memory once they are read.

    Parameters
    ----------
    parts : sequence of EmbeddingStore
    transform : Transform, optional
    fit : Fit, optional
        What was fitted on the train of other data; by default it is fitted on this one's.

    Raises
    ------
    UsageError
        If the stores are not of the same images, or have too few dimensions or rows.
    """

    def __init__(
        self,
        parts: Sequence[EmbeddingStore],
        transform: Transform | None = None,
        fit: Fit | None = None,
    ) -> None:
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
        self._given = fit
        self._read_before: dict[Split, np.ndarray] = {}
        if fit is None:
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

    def embeddings(self, split: Split) -> np.ndarray:
        """Return a split's embeddings, float32, shape (n_samples, dim)."""
        if split not in self._read_before:
            own = transformed(self._of_parts(split), self.fit, self.transform)
            self._read_before[split] = own
        return self._read_before[split]

    def visit(self, split: Split, visit: Visit, rows: slice = slice(None)) -> None:
        """Show a split's embeddings in parts, as `EmbeddingStore.visit` does."""
        values = self.embeddings(split)
        start, stop, _ = rows.indices(len(values))
        for at in range(start // CHUNK_ROWS * CHUNK_ROWS, stop, CHUNK_ROWS):
            part = values[at : at + CHUNK_ROWS]
            visit(slice(at, at + len(part)), part)

    def column(self, split: Split, name: str) -> Any:
        """Return a column of the rows, which all parts share, as `EmbeddingStore.column` does."""
        return self.parts[0].column(split, name)

    def verify(self) -> list[Damage]:
        """Check every byte of all parts."""
        return [damage for part in self.parts for damage in part.verify()]

    def _check_components(self) -> None:
        n_train = self.parts[0].info.layout("train").shape[0]
        most = min(sum(part.info.dim for part in self.parts), n_train)
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
                "warnings": list(dict.fromkeys(text for info in infos for text in info.warnings)),
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
        if self.transform is not None and self.transform.n is not None:
            return self.transform.n
        whitened = self.transform is not None and self.transform.kind == "whiten"
        if whitened and self.fit.components is not None:
            return len(self.fit.components)
        return sum(part.info.dim for part in self.parts)

    def _of_parts(self, split: Split) -> list[np.ndarray]:
        return [part.embeddings(split).astype(np.float32) for part in self.parts]

    @cached_property
    def fit(self) -> Fit:
        """What is fitted on train."""
        return self._given or Fit.of(self._of_parts("train"), self.transform)


def view_of(
    store: EmbeddingStore, rows: Mapping[Split, np.ndarray], warnings: Sequence[str] = ()
) -> EmbeddingStore:
    """Return some rows of a store as `View`, with all that is fitted fitted on its new train."""
    if isinstance(store, DerivedStore):
        return DerivedStore([View(part, rows, warnings) for part in store.parts], store.transform)
    return View(store, rows, warnings)


def without(store: EmbeddingStore, exclusion: Exclusion) -> EmbeddingStore:
    """Return a store without the rows that are left out, which nothing is fitted on either.

    Raises
    ------
    UsageError
        If the table is of other images, or leaves nothing of a split.
    """
    rows: dict[Split, np.ndarray] = {}
    begin = 0
    for split in SPLITS:
        keep = exclusion.kept(split, store.index(split), store.names(split))
        rows[split] = begin + np.flatnonzero(keep)
        begin += len(keep)
    return view_of(store, rows, [exclusion.sentence])
