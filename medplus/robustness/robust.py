"""Scoring heads and networks that exist on corrupted test images; nothing is trained or chosen.

A head is scored on test-only stores, which `medplus extract --corruption` would make as well; a
fine-tuned network on the images. What is known already is not computed again, and what is computed
is kept beside the run at once, so that an interrupted call goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus.analysis.results.robustness import Case, first_broken
from medplus.config import as_tuple
from medplus.corruptions import Corruption, chosen, of_dataset
from medplus.corruptions.table import SEVERITIES
from medplus.datasets.dataset import ImageDataset
from medplus.errors import RunError, UsageError
from medplus.metrics import balanced_accuracy_interval, balanced_loss, check, score
from medplus.progress import Advance, Progress, silent
from medplus.robustness.scorers import Options, open_scorer
from medplus.robustness.selection import select_runs
from medplus.run.ledger import hold_run, read_predictions
from medplus.run.record import RunRecord
from medplus.run.robustness import (
    CleanScores,
    Point,
    Robustness,
    read_robustness,
    write_robustness,
)

_PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Scored:
    """A run, and what is known of it on corrupted images.

    Attributes
    ----------
    record : RunRecord
    found : Robustness
        The points that were asked for.
    computed : int
        Those of them that were not known before.
    """

    record: RunRecord
    found: Robustness
    computed: int

    @property
    def case(self) -> Case:
        """It as analyses read it."""
        record = self.record
        named = (record.dataset, record.protocol, record.backbone, record.size)
        return Case(*named, record.seed, record.path, self.found)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``medplus robust --json`` prints of the run."""
        own = ("run_id", "path", "dataset", "size", "protocol", "backbone", "seed", "k", "lr")
        first = first_broken(self.found)
        return {
            **{name: getattr(self.record, name) for name in own},
            "computed": self.computed,
            "clean": self.found.clean.model_dump(mode="json"),
            "points": [point.model_dump(mode="json") for point in self.found.points],
            "breaks_first": None if first is None else first.model_dump(mode="json"),
        }


def robust(
    runs: str | Path | Sequence[str | Path],
    corruptions: str | Sequence[str] = (),
    severities: int | Sequence[int] = SEVERITIES,
    *,
    every: bool = False,
    overwrite: bool = False,
    data_root: str | Path | None = None,
    store: str | Path = "embeddings",
    device: str = "auto",
    batch_size: int | None = None,
    code: str | None = None,
    progress: Progress = silent,
) -> list[Scored]:
    """Score runs on corrupted test images, as MedMNIST-C does [1]_.

    Parameters
    ----------
    runs : path, or several
        Folders of runs, or folders that hold some; see
        `medplus.robustness.selection.select_runs`.
    corruptions : str or sequence of str
        Corruptions or families such as ``noise``; by default the dataset's own list, or the general
        one of grey or colour images.
    severities : int or sequence of int
        From 1 to 5.
    every : bool
        Take every run of a folder of runs, not only the best by val.
    overwrite : bool
        Score again what has been scored.
    data_root : path, optional
        Folder of the datasets; by default where the store's data lay, or ``data``.
    store : path
        Root of the stores, for heads whose own store has moved.
    device, batch_size
        As for `medplus.extract`.
    code : str, optional
        The Python file that defines the backbone, where one did: no run names code to be run.
    progress : Progress
        Where to report images.

    Returns
    -------
    list of Scored

    Raises
    ------
    MedplusError
        UsageError for what cannot be scored; DatasetError, StoreError or RunError where images,
        stores or runs are missing, damaged, or others than those of the run.

    References
    ----------
    .. [1] Di Salvo, Doerrich & Ledig, "MedMNIST-C: Comprehensive benchmark and improved classifier
       robustness by simulating realistic image corruptions", arXiv:2406.17536, 2024.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run] = medplus.knn(store, k=5)
    >>> [scored] = medplus.robust(run.path, ["brightness_up"], [1])
    >>> scored.record.path == run.path
    True
    """
    corruptions, severities = as_tuple(corruptions) or (), as_tuple(severities) or ()
    if bad := [level for level in severities if level not in SEVERITIES]:
        raise UsageError(f"--severity {bad[0]} is none of 1 to 5")
    if not severities:
        raise UsageError("there is no severity to score; name some of 1 to 5 with --severity")
    options = Options(
        None if data_root is None else Path(data_root), store, device, batch_size, code
    )
    asked = [runs] if isinstance(runs, str | Path) else list(runs)
    return [
        _score_run(record, corruptions, sorted(set(severities)), overwrite, options, progress)
        for record in select_runs(asked, every)
    ]


def _score_run(
    record: RunRecord,
    words: Sequence[str],
    severities: Sequence[int],
    overwrite: bool,
    options: Options,
    progress: Progress,
) -> Scored:
    folder = Path(record.path)
    scorer = open_scorer(record, options)
    images = scorer.images
    names = chosen(words, images.name, images.channels) or of_dataset(images.name, images.channels)
    wanted = [
        Corruption(name, level).settled(images.name, images.channels)
        for name in names
        for level in severities
    ]
    keys = {(one.name, one.severity, one.table) for one in wanted}
    with hold_run(folder, _PATIENCE_S):
        clean = _Clean.of(record, images)
        known = None if overwrite else read_robustness(folder)
        if known is None or (known.run_id, known.dataset_digest) != clean.identity:
            run_id, digest = clean.identity
            known = Robustness(run_id=run_id, dataset_digest=digest, clean=clean.scores, points=[])
        have = {point.key for point in known.points}
        todo = [one for one in wanted if (one.name, one.severity, one.table) not in have]
        total = len(todo) * len(images.splits["test"]) * scorer.passes
        what = f"{images.name} {images.size} px · {record.run_id} · {len(todo)} corruptions"
        if todo:
            with progress(what, total, "img") as advance, scorer.loaded(todo, _within(advance)):
                for one in todo:
                    scores = scorer.scores(one)
                    known.points.append(clean.point(one, scores))
                    if scorer.slow:
                        write_robustness(folder, known)
            write_robustness(folder, known)
    return Scored(record, known.of(keys), len(todo))


def _within(advance: Advance) -> Progress:
    """Return a progress whose tasks all advance the one that is there."""

    @contextmanager
    def inner(what: str, total: int, unit: str) -> Iterator[Advance]:
        yield advance

    return inner


@dataclass(frozen=True, eq=False)
class _Clean:
    """A run's predictions of the clean test images, and where these stand among the images."""

    record: RunRecord
    identity: tuple[str, str]
    predictions: dict[str, np.ndarray]
    rows: np.ndarray

    @classmethod
    def of(cls, record: RunRecord, images: ImageDataset) -> _Clean:
        saved = read_predictions(Path(record.path))
        if "test_index" not in saved:
            raise RunError(f"{record.path} holds no predictions of test images; make it again")
        positions = images.splits["test"].positions
        rows = np.searchsorted(positions, saved["test_index"])
        inside = rows < len(positions)
        if not inside.all() or (positions[rows] != saved["test_index"]).any():
            raise UsageError(
                f"{images.path} lacks test images that {record.path} was scored on; name the "
                "folder of its data with --data-root"
            )
        labels = images.splits["test"].labels[rows]
        if not np.array_equal(labels, saved["test_true"].reshape(labels.shape)):
            raise UsageError(
                f"{images.path} has other labels of test images than {record.path} was scored on; "
                "name the folder of its data with --data-root"
            )
        return cls(record, (record.run_id, record.dataset_digest), saved, rows)

    @property
    def groups(self) -> np.ndarray | None:
        return self.predictions.get("test_group")

    @property
    def scores(self) -> CleanScores:
        return CleanScores(**self._scored(self.predictions["test_score"]))

    def point(self, corruption: Corruption, scores: np.ndarray) -> Point:
        """Return what the scores of all test images under a corruption say."""
        task, true = self.record.task, self.predictions["test_true"]
        worse = scores[self.rows]
        before = check(true, self.predictions["test_score"], task)
        cost, error = balanced_loss(before, check(true, worse, task), self.groups)
        return Point(
            corruption=corruption.name,
            severity=corruption.severity,
            table=corruption.table,
            cost=cost,
            cost_se=error,
            **self._scored(worse),
        )

    def _scored(self, scores: np.ndarray) -> dict[str, Any]:
        task, true = self.record.task, self.predictions["test_true"]
        found = score(true, scores, task, groups=self.groups).to_dict()
        low, high = balanced_accuracy_interval(check(true, scores, task), self.groups)
        return {
            "balanced_error": 1 - found["balanced_accuracy"],
            "balanced_error_ci95": (1 - high, 1 - low),
            **{name: found.get(name) for name in ("acc", "auc", "ece")},
        }
