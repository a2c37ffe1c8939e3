"""Finding the one store that a request means."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from medplus.backbones import pythonfile
from medplus.backbones.catalog import resolve
from medplus.backbones.finetuned import check_weights, is_finetuned, trained_sha256
from medplus.backbones.weights import PRETRAINED, weights_label
from medplus.datasets import catalog, sources
from medplus.embeddings.store import EmbeddingStore, StoreInfo, list_stores, open_store, read_info
from medplus.errors import StoreError, UsageError, nearest

PIXELS = "pixels"


@dataclass(frozen=True)
class StoreQuery:
    """What a store must match; None matches everything.

    Attributes
    ----------
    dataset : str
        A MedMNIST flag, or the path or name of the user's file or folder.
    backbone : str
        The canonical name, the full tag, or the path of a fine-tuned run.
    weights : str or None
        ``pretrained``, ``none`` or the file; a run's own count as pretrained, and so do those of a
        folder.
    key : str or None
        The start of the key's digest.
    dataset_digests : frozenset of str, or None
        SHA-256 of the dataset's arrays, where two datasets share a name; one per size.
    weights_sha256 : str or None
        Digest of the backbone's weights, where two backbones share a name.
    """

    dataset: str
    size: int | None
    backbone: str
    weights: str | None = None
    precision: str | None = None
    dtype: str | None = None
    fit: str | None = None
    feature: str | None = None
    key: str | None = None
    dataset_digests: frozenset[str] | None = None
    weights_sha256: str | None = None

    @property
    def dataset_name(self) -> str:
        """The dataset's name as stores record it."""
        return sources.name_of(self.dataset)

    def names(self, info: StoreInfo) -> bool:
        """Tell whether dataset, size and backbone are those of a store."""
        return (
            info.dataset == self.dataset_name
            and self.size in (None, info.size)
            and self.backbone in (info.backbone, info.key["backbone"])
        )

    def matches(self, info: StoreInfo) -> bool:
        """Tell whether a store is one that this query means."""
        digests = self.dataset_digests
        wanted = [
            self.names(info),
            self.dtype in (None, info.dtype),
            self.key is None or info.key_digest.startswith(self.key),
            digests is None or info.key["dataset_digest"] in digests,
            self.weights_sha256 in (None, info.key["weights_sha256"]),
        ]
        if info.backbone != PIXELS:  # weights, precision, … mean nothing for raw pixels
            wanted += [
                self.feature in (None, info.key["feature"]),
                self._means_weights(info),
                self.precision in (None, "auto", info.key["precision"]),
                self.fit in (None, info.key["preprocess"]["fit"]),
            ]
        return all(wanted)

    def _means_weights(self, info: StoreInfo) -> bool:
        if self.weights is None:
            return True
        label = weights_label(self.weights)
        return label == info.weights or (label == PRETRAINED and info.run_id is not None)

    def identified(self) -> StoreQuery:
        """Return the query with a fine-tuned run or a Python file named as its stores name it.

        Only stores of the weights that the run has now will match: it may have trained on since
        others were made. So will only those of the file as it reads now.

        Raises
        ------
        UsageError
            If the run is to have other weights than its own.
        BackboneError
            If its network file is damaged, or a Python file is no Python.
        """
        if pythonfile.exists(self.backbone):
            return replace(self, backbone=resolve(self.backbone)[1])
        if not is_finetuned(self.backbone):
            return self
        check_weights(self.backbone, weights_label(self.weights or PRETRAINED))
        digest = trained_sha256(Path(self.backbone))
        return replace(self, backbone=resolve(self.backbone)[0], weights_sha256=digest)

    def describe(self) -> str:
        """Return the query in words."""
        size = "" if self.size is None else f" at {self.size} px"
        return f"{self.dataset_name}{size} with {self.backbone}"


def find_store(root: str | Path, query: StoreQuery) -> EmbeddingStore:
    """Return the one complete store that matches a query.

    Raises
    ------
    StoreError
        If no store matches, several do, or the only one that does is incomplete; the message
        names what is there and what to do.
    """
    root = Path(root)
    if not root.is_dir():
        raise StoreError(
            f"there is no folder {root} of embedding stores; name it with --store, or fill it "
            f"with: {_extract_command(root, query)}"
        )
    infos = list(_readable(root))
    asked, query = query, query.identified()
    matching = [(path, info) for path, info in infos if query.matches(info)]
    complete = [(path, info) for path, info in matching if info.complete]
    if len(complete) == 1:
        return EmbeddingStore(*complete[0])
    if complete:
        raise StoreError(_several(query, complete))
    if matching:
        return open_store(matching[0][0])  # raises, naming the command that completes it
    raise StoreError(_none(root, asked, query, infos))


def _readable(root: Path) -> list[tuple[Path, StoreInfo]]:
    found = []
    for path in list_stores(root):
        try:
            found.append((path, read_info(path)))
        except StoreError:
            continue  # a damaged store matches nothing; `medplus store verify` names it
    return found


def _several(query: StoreQuery, stores: list[tuple[Path, StoreInfo]]) -> str:
    options = [_options(info) for _, info in stores]
    telling = [flag for flag in options[0] if len({option[flag] for option in options}) > 1]
    lines = [f"{len(stores)} stores match {query.describe()}; say which one is meant:"]
    for (path, info), option in zip(stores, options, strict=True):
        flags = " ".join(f"{flag} {shlex.quote(option[flag])}" for flag in telling)
        lines.append(f"  {flags}   ({info.data_source} data, {path})")
    return "\n".join(lines)


def _options(info: StoreInfo) -> dict[str, str]:
    return {
        "--size": str(info.size),
        "--weights": info.weights,
        "--precision": str(info.key["precision"]),
        "--dtype": info.dtype,
        "--fit": str(info.key["preprocess"]["fit"]),
        "--feature": str(info.key["feature"]),
        "--key": info.key_digest[:8],
    }


def _none(
    root: Path, asked: StoreQuery, query: StoreQuery, infos: list[tuple[Path, StoreInfo]]
) -> str:
    source = replace(asked, backbone=_path_of_run(asked, infos))
    remedy = f"make it with: {_extract_command(root, source)}"
    named = [info for _, info in infos if query.names(info)]
    if any(replace(query, weights_sha256=None).matches(info) for info in named):
        return (
            f"the stores of {query.describe()} under {root} are of other weights than the run has "
            f"now: it has trained on, or is another of the same name; {remedy}"
        )
    if named:
        have = "; ".join(
            " ".join(f"{flag} {value}" for flag, value in _options(info).items()) for info in named
        )
        return (
            f"no store of {query.describe()} under {root} has these options (there: {have}); "
            f"{remedy}"
        )
    _check_names(root, asked, [info for _, info in infos])
    have = ", ".join(
        sorted({f"{info.dataset}/{info.size}/{info.backbone}" for _, info in infos})[:6]
    )
    there = f" (there: {have})" if have else ""
    unreadable = len(list(list_stores(root))) - len(infos)
    if unreadable:
        noun = "store" if unreadable == 1 else "stores"
        there += f" ({unreadable} {noun} there cannot be read: medplus store verify says why)"
    return f"no store of {query.describe()} under {root}{there}; {remedy}"


def _path_of_run(query: StoreQuery, infos: list[tuple[Path, StoreInfo]]) -> str:
    """Return what `extract` knows a backbone by: for the name of a run, its network file."""
    for _, info in infos:
        if info.run_id is not None and query.backbone in (info.backbone, info.key["backbone"]):
            return info.weights
    return query.backbone


def _check_names(root: Path, query: StoreQuery, infos: list[StoreInfo]) -> None:
    """Raise `UsageError` for a name that neither a store nor a catalogue knows."""
    datasets = {info.dataset for info in infos}
    datasets |= {path.parents[1].name for path in list_stores(root)}  # also those unreadable
    if query.dataset_name not in {*datasets, *catalog.FLAGS} and not sources.find(query.dataset):
        near = nearest(query.dataset, {*datasets, *catalog.FLAGS})
        raise UsageError(
            f"unknown dataset '{query.dataset}'{near} (medplus store ls lists what has a store)"
        )
    names = {name for info in infos for name in (info.backbone, info.key["backbone"])}
    if query.backbone not in names:
        resolve(query.backbone)


def _extract_command(root: Path, query: StoreQuery) -> str:
    words = ["medplus", "extract", "--dataset", query.dataset]
    words += ["--size", str(query.size)] if query.size is not None else []
    words += ["--backbone", query.backbone]
    for option in ("weights", "precision", "dtype", "fit", "feature"):
        value = getattr(query, option)
        words += [f"--{option}", value] if value else []
    words += ["--store", str(root)] if str(root) != "embeddings" else []
    return shlex.join(words)
