"""The units of a sweep: jobs, and the cells that they form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from medplus.jsonfile import digest_of
from medplus.naming import safe_name
from medplus.spec import NONE, PIXELS, PRELOGITS, PRETRAINED, ExtractSpec

Kind = Literal["extract", "knn", "probe", "finetune"]
State = Literal["finished", "failed", "left"]
_DEFAULTS = (PRETRAINED, "pad", PRELOGITS, None)
_LONGEST_NAME = 150  # file systems take 255 bytes, and a character may have several


@dataclass(frozen=True)
class Job:
    """One call of `medplus.extract`, `knn`, `probe` or `finetune`, small enough to be sent away.

    Attributes
    ----------
    spec : ExtractSpec
        The embeddings that it makes or works on; of a fine-tuning, its images and backbone.
    options : dict
        All else that determines what the job makes, as JSON can hold it.
    n_runs : int
        How many runs it makes; an extraction makes one store.
    runs_done : int
        How many of these are finished.
    state : {"finished", "failed", "left"}
        How it stands.
    seconds, nbytes : float, int
        Estimated wall time and disk of what is left of it.
    """

    kind: Kind
    spec: ExtractSpec
    options: dict[str, Any]
    n_runs: int
    runs_done: int = 0
    state: State = "left"
    seconds: float = 0.0
    nbytes: int = 0

    @cached_property
    def id(self) -> str:
        """A readable name that ends in 8 hex digits of the hash of what determines the job."""
        digest = digest_of({"kind": self.kind, "spec": asdict(self.spec), "options": self.options})
        return f"{safe_name(self.name.replace(' ', '-'))[:_LONGEST_NAME]}-{digest[:8]}"

    @property
    def name(self) -> str:
        """The job in words: kind, dataset, size, backbone, what is not the default, and seed."""
        spec = self.spec
        words = [self.kind, _short(spec.dataset), spec.size or None, _short(spec.backbone)]
        if spec.backbone != PIXELS:
            weights = "random" if spec.weights == NONE else _short(spec.weights or PRETRAINED)
            choices = (weights, spec.fit, spec.feature, spec.precision)
            words += [word for word in choices if word not in _DEFAULTS]
        if self.kind == "finetune":
            words.append(f"seed{self.options['seed']}")
            dealt = self.options.get("fold", {})
            words += [f"{word}{dealt[word]}" for word in ("repeat", "fold") if word in dealt]
        return " ".join(str(word) for word in words if word is not None)


def _short(name: str) -> str:
    """Return the last part of a path."""
    return name.rstrip("/").rpartition("/")[2].removesuffix(".npz") or name


@dataclass(frozen=True)
class Cell:
    """Jobs that are left of a cell of the grid, in this order: heads follow their extraction.

    Attributes
    ----------
    store : str or None
        The path of the store that the heads work on, if it exists already.
    """

    jobs: tuple[Job, ...]
    store: str | None

    @cached_property
    def seconds(self) -> float:
        """Estimated wall time."""
        return sum(job.seconds for job in self.jobs)

    @property
    def images(self) -> tuple[str, int | None]:
        """The images that it reads: a worker that has read them had better go on with them."""
        spec = self.jobs[0].spec
        return spec.dataset, spec.size


@dataclass(frozen=True)
class Place:
    """Where a sweep's files are, and what its workers compute on.

    Attributes
    ----------
    data_root, store, runs : str
        Full paths, since workers may have another working folder.
    device : str
        As for `medplus.extract`, as a worker sees it.
    until : float or None
        When work ends, in seconds since the epoch by the clock of the file system.
    """

    data_root: str
    store: str
    runs: str
    device: str = "auto"
    until: float | None = None
