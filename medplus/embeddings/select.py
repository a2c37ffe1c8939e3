"""Finding the store that a spec means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from shlex import quote

from medplus.backbones import sources as backbones
from medplus.datasets import catalog
from medplus.datasets import sources as datasets
from medplus.device import precision_here
from medplus.embeddings.container import Place, is_store
from medplus.embeddings.info import StoreInfo, read_info
from medplus.embeddings.store import EmbeddingStore, list_stores, open_store
from medplus.errors import DatasetError, StoreError, UsageError, nearest
from medplus.run.record import Provenance
from medplus.spec import AUTO, CHOICES, ExtractSpec

Found = tuple[Place, StoreInfo]


@dataclass(frozen=True)
class Sought:
    """A spec, and what is known here of the data and weights that its names stand for.

    Attributes
    ----------
    spec : ExtractSpec
        With dataset and backbone named as stores name them.
    asked : ExtractSpec
        As the user named them.
    data_digests : frozenset of str, or None
        Of the dataset, where its data are at hand; one per size.
    weights_sha256 : str or None
        Of a fine-tuned run, as it is now.
    key : str or None
        The start of the store's key.
    """

    spec: ExtractSpec
    asked: ExtractSpec
    data_digests: frozenset[str] | None = None
    weights_sha256: str | None = None
    key: str | None = None

    def matches(self, made: Provenance) -> bool:
        """Tell whether embeddings, or a run, are of what is sought."""
        digests = self.data_digests
        return (
            self.spec.matches(made)
            # Of embeddings that were made elsewhere only names and labels are known.
            and (digests is None or made.spec.is_imported or made.dataset_digest in digests)
            and self.weights_sha256 in (None, made.weights_sha256)
        )

    def means(self, info: StoreInfo) -> bool:
        """Tell whether a store matches, by its key too."""
        return self.matches(info) and (self.key is None or info.key.startswith(self.key))

    def names(self, info: StoreInfo) -> bool:
        """Tell whether dataset, size and backbone are those of a store."""
        return ExtractSpec(self.spec.dataset, self.spec.size, self.spec.backbone).matches(info)


def identify(spec: ExtractSpec, data_root: str | Path | None = None) -> Sought:
    """Look up what the names of a spec stand for here.

    Parameters
    ----------
    spec : ExtractSpec
    data_root : str or Path, optional
        Go by the data in this folder also for a flag; a path is always looked at. What is no
        longer there goes by its name.

    Raises
    ------
    MedplusError
        If the data in `data_root` or a run's weights are damaged or missing, or a run is to have
        other weights than its own.
    """
    name = datasets.name_of(spec.dataset)
    digests = None
    if data_root is not None:
        digests = datasets.digests(datasets.resolve(spec.dataset), spec.size, data_root)
    elif spec.dataset not in catalog.FLAGS:
        with suppress(UsageError, DatasetError):  # the mere name of a store's dataset
            digests = datasets.digests(datasets.resolve(spec.dataset), spec.size, "")
    named = replace(spec, dataset=name)
    if not backbones.is_at_hand(spec.backbone):  # a name, which stores know as well
        label = None if spec.weights is None else backbones.weights_label(spec.weights)
        return Sought(replace(named, weights=label), spec, digests)
    backbone = backbones.resolve(spec.backbone, spec.weights)
    weights = None if spec.weights is None else backbone.weights
    # A Python file's full name has the digest of its code, which its short name has not.
    name = backbone.tag if backbone.source == "python" else backbone.name
    named = replace(named, backbone=name, weights=weights)
    return Sought(named, spec, digests, backbone.weights_sha256)


def find_store(
    root: str | Path,
    spec: ExtractSpec,
    *,
    key: str | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
) -> EmbeddingStore:
    """Find the one complete store that a spec means.

    Parameters
    ----------
    root : str or Path
        Root of the stores, or one store.
    spec : ExtractSpec
        A choice that it leaves open matches any; precision ``auto`` is what an extraction on
        `device` takes.
    key : str, optional
        The start of the store's key.
    data_root : str or Path, optional
        Only stores of the data in this folder.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises
    ------
    StoreError
        If no store matches, several do, or the only one that does is incomplete; the message
        names what is there and what to do.

    Examples
    --------
    >>> import medplus
    >>> spec = medplus.ExtractSpec("breastmnist", 28, "pixels")
    >>> medplus.extract_all([spec])[0].store.key == medplus.find_store("embeddings", spec).key
    True
    """
    return find_stores(root, [spec], key=key, data_root=data_root, device=device)[0]


def find_stores(
    root: str | Path,
    specs: Iterable[ExtractSpec],
    *,
    key: str | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
) -> list[EmbeddingStore]:
    """Find the one complete store of every spec; as `find_store`, with the root read once."""
    there = is_store(root) or Path(root).is_dir()
    infos = list(readable(root)) if there else None
    found = []
    for spec in specs:
        if infos is None:
            raise StoreError(
                f"there is no folder {root} of embedding stores; name it with --store, or fill it "
                f"with: {_command(root, spec)}"
            )
        precision = precision_here(AUTO, device) if spec.precision == AUTO else spec.precision
        sought = identify(replace(spec, precision=precision), data_root)
        found.append(_choose(root, replace(sought, asked=spec, key=key), infos))
    return found


def readable(root: Place) -> Iterator[Found]:
    """Yield a store, or those under a root that can be read; `medplus store verify` names others.

    Raises
    ------
    StoreError
        If it is one store, and cannot be read.
    """
    if is_store(root):
        yield root, read_info(root)
        return
    for path in list_stores(Path(root)):
        try:
            yield path, read_info(path)
        except StoreError:
            continue


def _choose(root: Place, sought: Sought, infos: list[Found]) -> EmbeddingStore:
    matching = [(path, info) for path, info in infos if sought.means(info)]
    complete = [found for found in matching if found[1].complete]
    if len(complete) == 1:
        return EmbeddingStore(*complete[0])
    if complete:
        raise StoreError(_several(sought, complete))
    if matching:
        return open_store(matching[0][0])  # raises, naming the command that completes it
    raise StoreError(_none(root, sought, infos))


def _several(sought: Sought, stores: list[Found]) -> str:
    options = [_options(info) for _, info in stores]
    telling = [flag for flag in options[0] if len({option.get(flag) for option in options}) > 1]
    lines = [
        f"{len(stores)} stores match {sought.spec.describe()}; say which one is meant, or give its "
        "path as the store:"
    ]
    for (path, info), option in zip(stores, options, strict=True):
        flags = " ".join(f"{flag} {quote(option[flag])}" for flag in telling if flag in option)
        lines.append(f"  {flags}   ({info.data_source} data, {path})")
    return "\n".join(lines)


_TELLING = tuple(name for name in CHOICES if name not in ("group_column", "exclude"))
"""The choices that select a store; a column of groups shows in the data's digest."""


def _options(info: StoreInfo) -> dict[str, str]:
    """Return the flags that tell a store from others."""
    choices = {name: value for name, value in asdict(info.spec).items() if name in _TELLING}
    flags = {"size": info.size, **choices, "key": info.key[:8]}
    return {f"--{name}": str(value) for name, value in flags.items() if value is not None}


def _none(root: Place, sought: Sought, infos: list[Found]) -> str:
    what = sought.spec.describe()
    remedy = f"make it with: {_command(root, _makeable(sought.asked, infos))}"
    named = [info for _, info in infos if sought.names(info)]
    if any(replace(sought, weights_sha256=None).means(info) for info in named):
        return (
            f"the stores of {what} under {root} are of other weights than the run has now: it has "
            f"trained on, or is another of the same name; {remedy}"
        )
    if named:
        have = "; ".join(
            " ".join(f"{flag} {value}" for flag, value in _options(info).items()) for info in named
        )
        return f"no store of {what} under {root} has these options (there: {have}); {remedy}"
    listed = [] if is_store(root) else list(list_stores(Path(root)))
    _check_names(sought, [info for _, info in infos], listed)
    asked = f"{sought.spec.dataset}/{sought.spec.size}/{sought.spec.backbone}"
    names = {f"{info.dataset}/{info.size}/{info.backbone}" for _, info in infos}
    shown = get_close_matches(asked, sorted(names), 6, cutoff=0)
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    there = f" (there: {', '.join(shown)}{more})" if names else ""
    if len(listed) > len(infos):
        n = len(listed) - len(infos)
        there += f" (unreadable there: {n}; medplus store verify says why)"
    return f"no store of {what} under {root}{there}; {remedy}"


def _makeable(asked: ExtractSpec, infos: list[Found]) -> ExtractSpec:
    """Return what `extract` knows a backbone by: for the mere name of a run, its network file."""
    for _, info in infos:
        if info.run_id is not None and asked.backbone in (info.backbone, info.tag):
            return replace(asked, backbone=info.spec.backbone)
    return asked


def _check_names(sought: Sought, infos: list[StoreInfo], listed: list[Path]) -> None:
    """Raise `UsageError` for a name that neither a store nor a catalogue knows."""
    known = {info.dataset for info in infos} | set(catalog.FLAGS)
    known |= {path.parents[1].name for path in listed}  # also those unreadable
    if sought.spec.dataset not in known:
        try:
            datasets.resolve(sought.asked.dataset)
        except UsageError:
            near = nearest(sought.asked.dataset, known)
            raise UsageError(
                f"unknown dataset '{sought.asked.dataset}'{near} (medplus store ls lists what "
                "has a store)"
            ) from None
    if sought.asked.backbone not in {n for info in infos for n in (info.backbone, info.tag)}:
        backbones.resolve(sought.asked.backbone)


def _command(root: Place, spec: ExtractSpec) -> str:
    by_default = str(root) == "embeddings" or is_store(root)
    return spec.command(store=None if by_default else str(root))
