"""A frozen backbone as a transformer of scikit-learn: images in, embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from medplus.backbones import sources
from medplus.device import resolve_device, resolve_precision
from medplus.embeddings.bycontent import KeptEmbeddings
from medplus.errors import BackboneError, UsageError
from medplus.jsonfile import digest_of
from medplus.naming import safe_name
from medplus.reading import Reading
from medplus.sklearn.images import Images, read_images
from medplus.spec import AUTO, PRELOGITS, make_spec
from medplus.vocabulary import Fit, Precision

if TYPE_CHECKING:
    from medplus.backbones.inference import Embedder

FOLDER = "by-content"
"""Where embeddings of single images lie below the root of the stores."""
_AT_ONCE = 256
"""Images that are read, embedded and kept in one go."""


class EmbeddingTransformer(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn is untyped
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Embed images with a frozen backbone, each image once.

    Embeddings are kept by what the image is, under `store`: whatever a cross-validation, a grid
    search or a later session asks for again is read, also in other processes, and an interrupted
    call goes on where it was. Nothing is fitted, so that no fold tells another anything.

    Parameters
    ----------
    backbone : str, default="resnet18"
        As for `medplus.extract`: one of the paper's ten, ``pixels``, any timm name, the folder of a
        fine-tuned run, a Python file.
    size : int, optional
        Height and width in pixels to which images are brought first. Square arrays keep their own
        by default; files need it, or a `reading`.
    weights : str, optional
        ``pretrained`` (the default), ``none``, or a file.
    image_fit : {"pad", "resize", "native"}, optional
        What `medplus.extract` calls `fit`: how images are brought to the backbone's input.
    feature : str, optional
        What of the network is its embedding; by default ``prelogits``.
    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
    reading : Reading, optional
        How files become pixels, as a dataset, a store or a record tells: ``store.info.reading``. By
        default they are squashed to `size` and RGB.
    store : str or Path, default="embeddings"
        Root of the stores, under which embeddings are kept; None keeps nothing.
    device : str, default="auto"
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    batch_size : int, optional
        Images per forward; by default measured and remembered, as by `medplus.extract`. Halved when
        memory runs out.

    Examples
    --------
    >>> images = np.zeros((3, 8, 8), np.uint8)
    >>> EmbeddingTransformer("pixels", store=None).fit_transform(images).shape
    (3, 64)
    """

    _n_features_out: int

    def __init__(
        self,
        backbone: str = "resnet18",
        *,
        size: int | None = None,
        weights: str | None = None,
        image_fit: Fit | None = None,
        feature: str | None = None,
        precision: Precision | Literal["auto"] = "auto",
        reading: Reading | None = None,
        store: str | Path | None = "embeddings",
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.size = size
        self.weights = weights
        self.image_fit = image_fit
        self.feature = feature
        self.precision = precision
        self.reading = reading
        self.store = store
        self.device = device
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> Self:
        """Embed the first image, which tells the number of dimensions; nothing is learned.

        Raises
        ------
        MedplusError
            If a parameter is not allowed, or the images or the backbone cannot be used.
        """
        self._n_features_out = self._embed(X[:1]).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return embeddings, float32, shape (n, dim).

        Parameters
        ----------
        X : array-like
            Images, uint8, shape (n, height, width) or (n, height, width, 3), or paths of n files.
        """
        return self._embed(X)

    def _embed(self, X: Any) -> np.ndarray:
        images = read_images(X, self.reading, self.size)
        reading = images.reading
        if self.size not in (None, reading.size):
            raise UsageError(f"size = {self.size} is not the reading's {reading.size}; say one")
        if AUTO in (reading.channels, reading.value_range):
            raise UsageError(
                "a reading says auto, which only a dataset's own images decide; take it from a "
                "store (store.info.reading), or say channels and value_range"
            )
        make_spec(
            "images", reading.size, fit=self.image_fit, precision=self.precision
        )  # checks both
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")
        ref = sources.resolve(self.backbone, self.weights)
        embedder = _embedder(
            ref, reading.size, self.image_fit, self.feature or PRELOGITS,
            self.precision, self.device,
        )  # fmt: skip
        embedder.backbone.preprocess.check(reading.size)
        if self.store is None:
            return _embed(embedder, images, range(len(X)), self.batch_size)
        kept = _kept(embedder, reading, Path(self.store))
        return _embed_once(embedder, images, kept, self.batch_size)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = False
        return tags


@lru_cache(maxsize=1)
def _embedder(
    ref: sources.BackboneRef, size: int, image_fit: Fit | None, feature: str, precision: str,
    device: str,
) -> Embedder:  # fmt: skip
    """Return a backbone on its device; the last one stays, as clones ask for it again and again."""
    from medplus.backbones.build import load
    from medplus.backbones.inference import Embedder

    target = resolve_device(device)
    settled = resolve_precision(precision, target)
    loaded = load(ref, size, image_fit, feature=feature)
    return Embedder(loaded, target, settled if loaded.is_network else "fp32", _AT_ONCE)


def _kept(embedder: Embedder, reading: Reading, root: Path) -> KeptEmbeddings:
    backbone = embedder.backbone
    key = digest_of(
        {
            "backbone": backbone.digest,
            "feature": backbone.feature,
            "fit": backbone.preprocess.fit,
            "precision": embedder.precision,
            "reading": reading.model_dump(mode="json"),
        }
    )
    return KeptEmbeddings(root / FOLDER / f"{safe_name(backbone.name)}-{key[:16]}.sqlite")


def _embed_once(
    embedder: Embedder, images: Images, kept: KeptEmbeddings, batch_size: int | None
) -> np.ndarray:
    """Return embeddings of all images; compute and keep those that are not kept yet."""
    digests = images.digests()
    row_of = {digest: row for row, digest in enumerate(digests)}  # equal images count once
    found = kept.find(list(row_of))
    if len(found) < len(row_of):
        with kept.held():  # another process may have embedded them meanwhile
            found |= kept.find([digest for digest in row_of if digest not in found])
            missing = [digest for digest in row_of if digest not in found]
            for start in range(0, len(missing), _AT_ONCE):
                some = missing[start : start + _AT_ONCE]
                places = [row_of[digest] for digest in some]
                rows = _embed(embedder, images, places, batch_size)
                kept.add(some, rows)
                found |= zip(some, rows, strict=True)
    return np.stack([found[digest] for digest in digests])


def _embed(
    embedder: Embedder, images: Images, rows: Sequence[int], batch_size: int | None
) -> np.ndarray:
    import torch

    from medplus.embeddings.tuning import Tuned

    side = images.reading.size
    tuned = Tuned(embedder, len(rows), 3 * side * side, batch_size, compiled=False)
    parts = [
        tuned(torch.from_numpy(images.pixels(rows[start : start + _AT_ONCE]))).cpu().numpy()
        for start in range(0, len(rows), _AT_ONCE)
    ]
    embeddings: np.ndarray = np.concatenate(parts)
    if not np.isfinite(embeddings).all():
        raise BackboneError(
            f"{embedder.backbone.name} gives embeddings that are not finite at "
            f"{embedder.precision}; say precision='fp32'"
        )
    return embeddings
