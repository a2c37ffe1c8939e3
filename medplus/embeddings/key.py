"""What identifies a set of embeddings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from medplus.vocabulary import Precision, StoreDtype, Task

SCHEMA = 1
KEY_LENGTH = 8


@dataclass(frozen=True)
class StoreKey:
    """Every choice that changes an embedding; equal keys mean equal embeddings.

    Attributes
    ----------
    dataset_digest : str
        SHA-256 over the arrays of the dataset.
    size : int
        Size of the images in pixels.
    backbone : str
        The backbone's full tag.
    weights_sha256 : str
        Digest of the weights that were in memory.
    preprocess : dict
        mean, std, fit, canvas and rgb, as in `medplus.preprocess.PreprocessSpec`.
    feature : str
        Definition of the embedding, for example ``prelogits``.
    precision : {"fp32", "bf16", "fp16"}
        Precision of the computation.
    dtype : {"float32", "float16"}
        How the embeddings are stored.
    task : Task
        What the stored labels mean: the same arrays may be read as another task.
    schema : int
        Version of the store's layout.
    """

    dataset_digest: str
    size: int
    backbone: str
    weights_sha256: str
    preprocess: dict[str, Any]
    feature: str
    precision: Precision
    dtype: StoreDtype
    task: Task
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in clear, as they stand in the store's attributes."""
        # Through JSON, so that a key just made equals one that was read back (tuples and lists).
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields

    @property
    def digest(self) -> str:
        """SHA-256 of the fields in canonical JSON, in hex."""
        return digest_of(self.to_dict())

    @property
    def key8(self) -> str:
        """The start of the digest, as it stands in the store's name."""
        return self.digest[:KEY_LENGTH]


def digest_of(fields: dict[str, Any]) -> str:
    """Return the SHA-256 of a JSON object in canonical form, in hex."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
