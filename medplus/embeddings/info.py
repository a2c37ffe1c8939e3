"""What a store says of itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import ConfigDict, Field, PositiveInt, ValidationError, model_validator

from medplus import atomic
from medplus._version import __version__
from medplus.datasets import catalog
from medplus.embeddings import layout
from medplus.embeddings.container import Place, open_container, to_place
from medplus.embeddings.layout import ATTRIBUTE, METADATA, ArrayLayout
from medplus.errors import StoreError
from medplus.jsonfile import parse_json
from medplus.naming import safe_name, utc_now
from medplus.run.record import Provenance
from medplus.seal import seal, unseal
from medplus.spec import SCHEMA
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

_KEY_LENGTH = 8
"""How much of its key stands in a store's name."""
_GROUP = {"zarr_format": 3, "node_type": "group"}


class DamagedStoreError(StoreError):
    """A store's own description is damaged, so that nothing in it can be trusted."""


class StoreInfo(Provenance):
    """A store's attributes: what it holds, how it came about, and whether it is complete.

    Its spec says how the embeddings can be made again.

    Attributes
    ----------
    schema_version : int
        `medplus.spec.SCHEMA`.
    key : str
        The identity of the embeddings, SHA-256 in hex: ``spec.key(dataset_digest,
        backbone_digest)``.
    dataset_path : str
        Where the dataset's file or folder lies.
    preprocess : dict
        The fields of `medplus.preprocess.PreprocessSpec`.
    run_id : str or None
        The fine-tuned run that the backbone is.
    dim : int
        Number of embedding dimensions D.
    name_nbytes : int
        Bytes per row of the names: UTF-8, filled up with zeros.
    group_nbytes : int
        The same of the groups, such as patients; 0 where nothing is known to belong together.
    metadata : dict
        SHA-256 of the Zarr metadata of each group and array below the store's own.
    cost : dict
        ``seconds``, ``images_per_second`` and ``device`` of the extraction, over all its sessions.
    made_by : list of str
        Of embeddings that were made elsewhere, the command that imported them; else empty.
    complete : bool
        Set last; readers refuse a store without it.
    """

    model_config = ConfigDict(frozen=False)

    schema_version: int = SCHEMA
    key: str
    size: PositiveInt = Field(exclude=True)  # the spec tells it
    dataset_path: str
    preprocess: dict[str, Any]
    run_id: str | None = None
    dim: PositiveInt
    n_samples: dict[Split, PositiveInt]
    name_nbytes: PositiveInt = 1
    group_nbytes: int = 0
    versions: dict[str, str]
    created: str = Field(default_factory=utc_now)
    cost: dict[str, Any] = Field(default_factory=dict)
    made_by: list[str] = Field(default_factory=list)
    complete: bool = False
    metadata: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_size(cls, fields: Any) -> Any:
        spec = fields.get("spec")
        found = spec.get("size") if isinstance(spec, dict) else getattr(spec, "size", None)
        return {**fields, "size": found}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if set(self.n_samples) != ({"test"} if self.spec.corruption else set(SPLITS)):
            raise ValueError("a split is missing")
        return self

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that it holds, in order: all, or test alone of corrupted images."""
        return tuple(split for split in SPLITS if split in self.n_samples)

    @property
    def dtype(self) -> np.dtype:
        """The type of the stored embeddings, little-endian float32 or float16."""
        return np.dtype(self.spec.dtype or "float32").newbyteorder("<")

    @property
    def label_dtype(self) -> np.dtype:
        """uint8, or int64 where there are more than 256 classes."""
        return np.dtype("u1") if len(self.classes) <= 256 else np.dtype("<i8")

    @property
    def n_labels(self) -> int:
        """Columns of the labels: one, or one per label where several may hold."""
        return len(self.classes) if self.task == MULTI_LABEL else 1

    def path_under(self, root: Path) -> Path:
        """Return where the store lies under the root of the stores."""
        name = f"{safe_name(self.backbone)}-{self.key[:_KEY_LENGTH]}.zarr"
        return root / safe_name(self.dataset) / str(self.size) / name

    def resume_command(self, root: Path | None = None) -> str:
        """Return the command that completes or repairs this store under a root.

        Without one, the command that makes it wherever stores are by default.
        """
        if self.made_by:
            return shlex.join([*self.made_by, *([] if root is None else ["--store", str(root)])])
        if root is None:
            return self.spec.command()
        by_flag = self.spec.dataset in catalog.FLAGS
        data_root = str(Path(self.dataset_path).parent) if by_flag else None
        return self.spec.command(data_root, str(root))

    def layout(self, split: Split, name: str = "embeddings") -> ArrayLayout:
        """Return the layout of one of a split's `arrays`.

        Raises
        ------
        StoreError
            If it holds test images alone, which were corrupted, and another split is asked for.
        """
        if split not in self.n_samples:
            raise StoreError(
                f"the store {self.key[:8]} of {self.spec.describe()} holds test images corrupted "
                f"by {self.spec.corruption}, and no {split}; name a store of the clean images"
            )
        n, byte = self.n_samples[split], np.dtype("u1")
        columns: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "embeddings": ((self.dim,), self.dtype),
            "labels": ((self.n_labels,), self.label_dtype),
            "index": ((), np.dtype("<i8")),
            "names": ((self.name_nbytes,), byte),
            "groups": ((self.group_nbytes,), byte),
        }
        shape, dtype = columns[name]
        chunk_rows = min(n, layout.CHUNK_ROWS) if name == "embeddings" else n
        return ArrayLayout(f"{split}/{name}", (n, *shape), dtype, chunk_rows)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arrays of every split; groups where something is known to belong together."""
        return ("embeddings", "labels", "index", "names", *["groups"] * bool(self.group_nbytes))

    def all_layouts(self) -> Iterator[ArrayLayout]:
        """Yield the layouts of every array of the store."""
        for split in self.splits:
            yield from (self.layout(split, name) for name in self.arrays)


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of medplus and of packages that are installed."""
    return {"medplus": __version__, **{name: version(name) for name in packages}}


def read_info(path: Place) -> StoreInfo:
    """Read and check a store's attributes, complete or not.

    Raises
    ------
    StoreError
        If there is no store, its attributes are damaged, or it is of another schema.
    """
    path = to_place(path)
    try:
        document = parse_json(open_container(path).read(METADATA))
        attributes = document.pop("attributes")[ATTRIBUTE]
        schema = attributes["schema_version"]
    except (FileNotFoundError, NotADirectoryError):
        if isinstance(path, Path) and path.suffix == ".zarr" and path.is_dir():
            raise _damaged(path, f"its {METADATA} is missing") from None
        raise StoreError(f"there is no embedding store at {path}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, f"{METADATA} is not a medplus store's") from None
    if schema != SCHEMA:
        words = [f"--{name} {attributes.get(name)}" for name in ("dataset", "size", "backbone")]
        raise StoreError(
            f"{path} has schema {schema}, this medplus reads schema {SCHEMA}; use the version that "
            f"wrote it, or make it anew with: medplus extract {' '.join(words)}"
        )
    try:
        attributes, intact = unseal(attributes)
        info = StoreInfo.model_validate(attributes)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _damaged(path, f"attribute '{place}' is invalid") from None
    if info.spec.key(info.dataset_digest, info.backbone_digest) != info.key:
        raise _damaged(path, "its key does not belong to it")
    if not intact or document != _GROUP:
        raise _damaged(path, "its attributes are not those that were written")
    return info


def _damaged(path: Place, what: str) -> DamagedStoreError:
    remedy = "copy or export it again"
    if isinstance(path, Path) and path.is_dir():
        remedy = (
            "run the medplus extract or store import command that made it again, or delete it "
            "with: "
            f"medplus store rm {shlex.quote(str(path))}"
        )
    return DamagedStoreError(f"{path} is damaged: {what}; {remedy}")


def write_info(path: Path, info: StoreInfo) -> None:
    """Write a store's attributes, synced, in one step: what says that it is complete."""
    attributes = {ATTRIBUTE: seal(info.model_dump(mode="json"))}
    atomic.write_json(path / METADATA, {"attributes": attributes, **_GROUP})
