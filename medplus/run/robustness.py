"""What is recorded of a run on corrupted test images: a sealed document in the run's folder."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from medplus import atomic
from medplus.errors import RunError, writing
from medplus.jsonfile import parse_json
from medplus.seal import seal, unseal

ROBUSTNESS_FILE = "robustness.json"
SCHEMA = 1


class CleanScores(BaseModel):
    """Scores on the test images as they are; fractions from 0 to 1.

    Attributes
    ----------
    balanced_error : float
        1 − balanced accuracy.
    balanced_error_ci95 : tuple of float
    acc, ece : float
    auc : float or None
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    balanced_error: float
    balanced_error_ci95: tuple[float, float]
    acc: float
    auc: float | None
    ece: float


class Point(CleanScores):
    """Scores on the test images under one corruption at one severity.

    Attributes
    ----------
    corruption, severity, table
        As `medplus.corruptions.Corruption` has them.
    cost, cost_se : float
        By how much the balanced error exceeds that on clean images, and its standard error over
        the same images.
    """

    corruption: str
    severity: int
    table: str
    cost: float
    cost_se: float

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells it from the run's other points."""
        return self.corruption, self.severity, self.table


class Robustness(BaseModel):
    """What is known of a run on corrupted images.

    Attributes
    ----------
    run_id, dataset_digest : str
        The run's, and that of the clean data.
    clean : CleanScores
    points : list of Point
        In no order that matters; one per corruption and severity.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    run_id: str
    dataset_digest: str
    clean: CleanScores
    points: list[Point]

    def of(self, keys: Container[tuple[str, int, str]]) -> Robustness:
        """Return it with those points only."""
        kept = [point for point in self.points if point.key in keys]
        return self.model_copy(update={"points": kept})


def read_robustness(run: Path) -> Robustness | None:
    """Read what a run's folder holds; None where it was never scored on corrupted images.

    Raises
    ------
    RunError
        If the document is damaged.
    """
    path = run / ROBUSTNESS_FILE
    try:
        content, intact = unseal(parse_json(path.read_bytes()))
        if intact:
            return Robustness.model_validate(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError):  # pydantic's error is a ValueError
        pass
    raise RunError(f"{path} is damaged; delete it, and run medplus robust {run} again")


def write_robustness(run: Path, found: Robustness) -> None:
    """Write it into the run's folder, in one step.

    Raises
    ------
    RunError
        If the disk refuses it.
    """
    with writing(run / ROBUSTNESS_FILE, "free space, or make the run's folder writable"):
        atomic.write_json(run / ROBUSTNESS_FILE, seal(found.model_dump(mode="json")))
