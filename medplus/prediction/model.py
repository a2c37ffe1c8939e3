"""A saved run as one model: from images to the run's own scores, and what goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from medplus.backbones.finetuned import is_finetuned
from medplus.device import resolve_device
from medplus.embeddings.container import to_place
from medplus.errors import RunError, StoreError, UsageError
from medplus.evaluation.rescore import folder_of, no_network
from medplus.heads.knn.search import Neighbours
from medplus.metrics.temperature import fit_temperature
from medplus.prediction.networks import Extractor, load_extractor, load_trained
from medplus.prediction.reference import Reference
from medplus.prediction.savedrun import SavedRun
from medplus.prediction.scorers import Embeddings, Scorer, TrainedHead, Votes
from medplus.reading import Policy, Reading
from medplus.run.ledger import check_is_run, read_predictions, read_record
from medplus.run.record import RunRecord
from medplus.vocabulary import MULTI_LABEL, Task


@dataclass(frozen=True, eq=False)
class Examined:
    """What a model says of some images.

    Attributes
    ----------
    scores : ndarray of float32, shape (n, n_classes)
    neighbours : Neighbours or None
        Rows of the model's reference, nearest first.
    """

    scores: np.ndarray
    neighbours: Neighbours | None


@dataclass(frozen=True, eq=False)
class Model:
    """A saved run, ready for new images.

    Attributes
    ----------
    record : RunRecord
        Of the run; its path is the run's folder.
    reading : Reading
        How a file becomes pixels, settled; its policy is None where nobody knows how images that
        are not square were made so.
    extractors : tuple of Extractor
        The backbones, whose embeddings stand side by side; mostly one.
    scorer : Scorer
        `LinearHeads`, `Votes` or `TrainedHead`: turns embeddings into scores.
    reference : Reference or None
        The images that it has learned from.
    missing : str
        Why there is no reference and how to have one; empty where there is one.
    notes : tuple of str
        What was assumed.
    """

    record: RunRecord
    reading: Reading
    extractors: tuple[Extractor, ...]
    scorer: Scorer
    reference: Reference | None
    missing: str = ""
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The run's folder."""
        return Path(self.record.path)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, or labels, in the order of the scores."""
        return self.record.classes

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return self.record.task

    def embed(self, images: torch.Tensor) -> Embeddings:
        """Embed a batch with every backbone, as the run's own embeddings were made.

        Parameters
        ----------
        images : Tensor of uint8, shape (n, size, size) or (n, size, size, 3)

        Returns
        -------
        list of ndarray of float32, shape (n, dim)
        """
        return [extractor(images) for extractor in self.extractors]

    def score(self, embeddings: Embeddings) -> np.ndarray:
        """Return the run's own scores of embeddings, float32 (n, n_classes).

        Probabilities or, of kNN, shares of votes; of a multi-label task one for each label.
        """
        return self.scorer(embeddings)

    def examine(self, embeddings: Embeddings, n_nearest: int = 3) -> Examined:
        """Return the scores of embeddings, and what in train is nearest to each.

        Parameters
        ----------
        embeddings : sequence of ndarray of float32, shape (n, dim)
            Finite.
        n_nearest : int
            How many train images, where there is a `reference`.
        """
        if self.reference is None:
            return Examined(self.score(embeddings), None)
        if isinstance(self.scorer, Votes):  # one search serves both
            found = self.reference.find(embeddings, max(self.scorer.k, n_nearest))
            return Examined(self.scorer.shares(found), found)
        return Examined(self.score(embeddings), self.reference.find(embeddings, n_nearest))

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """The run's predictions of val and test."""
        return read_predictions(self.path)

    @cached_property
    def temperature(self) -> float | None:
        """Fitted on the run's predictions of val (see `medplus.metrics.temperature`), or None."""
        found = self.predictions
        if "val_score" not in found:
            return None
        return fit_temperature(found["val_true"], found["val_score"], self.task)


def load_model(
    run: str | Path,
    *,
    store: str | Path = "embeddings",
    backbone: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    policy: Policy | None = None,
    exclude: str | Path | None = None,
) -> Model:
    """Load a run of `medplus.probe`, `medplus.knn` or `medplus.finetune` as a model.

    Parameters
    ----------
    run : str or Path
        Its folder, or a file in it.
    store : str or Path
        Root of the stores, or a store: where the run's embeddings of train are, if not where they
        were. kNN needs them; others compare with them.
    backbone : str, optional
        Where the backbone is now. A Python file runs only when it is named.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    precision : {"auto", "fp32", "bf16", "fp16"}, optional
        Of the networks; by default the run's.
    batch_size : int, optional
        Images per forward of a fine-tuned network; by default as `medplus.evaluate` has it.
    policy : {"squash", "crop", "pad"}, optional
        How images that are not square are made so, where the run's data do not tell.
    exclude : str or Path, optional
        The table of suspects that the run was made without.

    Raises
    ------
    UsageError
        If it is no run, or needs a choice.
    RunError, StoreError, BackboneError
        If what it needs is missing or damaged.

    Examples
    --------
    >>> import medplus, torch
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run] = medplus.probe(store, seeds=1, lr=0.01)
    >>> model = load_model(run.path)
    >>> images = medplus.load_dataset("breastmnist", 28).splits["test"].images[:3]
    >>> model.score(model.embed(torch.tensor(images))).shape
    (3, 2)
    """
    folder = folder_of(Path(run))
    check_is_run(folder)
    record = read_record(folder)
    reading, notes = _reading_of(record, policy)
    target, own = resolve_device(device), SavedRun(record, to_place(store), device, exclude)
    reference: Reference | None
    if record.store is None:
        if not is_finetuned(str(folder)):
            raise no_network(folder, record)
        extractor, linear = load_trained(folder, record, target, backbone, precision, batch_size)
        reference, missing = own.of_network(extractor)
        trained = TrainedHead(linear, extractor.embedder, record.task == MULTI_LABEL)
        return Model(record, reading, (extractor,), trained, reference, missing, notes)
    extractors = tuple(
        load_extractor(folder, part, record.size, target, backbone, precision)
        for part in record.parts
    )
    head = own.head()
    if isinstance(head, Votes):
        return Model(record, reading, extractors, head, head.reference, notes=notes)
    try:
        reference, missing = own.of_head(), ""
    except StoreError as error:
        reference, missing = None, str(error)
    return Model(record, reading, extractors, head, reference, missing, notes)


def _reading_of(record: RunRecord, policy: Policy | None) -> tuple[Reading, tuple[str, ...]]:
    """Return how a run's images were read, and what of it is assumed."""
    known = record.reading
    if known is None:
        raise RunError(
            f"{record.path} does not say how its images were read, since they came as arrays made "
            "by hand; make the run again on files or an npz file"
        )
    if known.policy is not None:
        if policy not in (None, known.policy):
            raise UsageError(
                f"--policy {policy}: the images of {record.dataset} were made square by "
                f"{known.policy}, and so must others be; leave --policy out"
            )
        return known, ()
    square = (
        f"those that are not square by --policy {policy}"
        if policy
        else "those that are not square are refused, unless --policy says how to make them so"
    )
    note = (
        f"{record.dataset} came as arrays of {known.size} px, so that it is assumed how files "
        f"become the same: resized to {known.size} px (bicubic) and "
        f"{'grey' if known.channels == 'grey' else 'RGB'}, 16 bits by their whole range; {square}"
    )
    return known.model_copy(update={"policy": policy}), (note,)
