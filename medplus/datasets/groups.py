"""What must stay together, such as the images of a patient: which column says it, and whether."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from medplus.datasets.description import DESCRIPTION_FILE, Description
from medplus.datasets.files import Sample
from medplus.datasets.wording import count, some
from medplus.errors import UsageError
from medplus.vocabulary import Split

log = logging.getLogger(__name__)


def with_group_column(description: Description, root: Path, asked: str | None) -> Description:
    """Return the description of a folder with the group column that a command asks for.

    Raises
    ------
    UsageError
        If `dataset.yaml` names another: commands without the flag would disagree on the split.
    """
    if asked is None or asked == description.group_column:
        return description
    if description.group_column is not None:
        raise UsageError(
            f"--group-column {asked}: {root / DESCRIPTION_FILE} says group_column: "
            f"{description.group_column}; leave the flag out, or change it there"
        )
    return description.model_copy(update={"group_column": asked})


def check_groups(root: Path, samples: list[Sample], description: Description) -> None:
    """Refuse groups that stand in several splits, or warn of them where that is allowed.

    Raises
    ------
    UsageError
    """
    if description.group_column is None:
        return
    where: dict[str | None, set[Split | None]] = defaultdict(set)
    for sample in samples:
        where[sample.group].add(sample.split)
    torn = sorted(str(group) for group, splits in where.items() if len(splits) > 1)
    if not torn:
        return
    told = (
        f"{count(len(torn), 'group')} of {len(where):,} in the column "
        f"'{description.group_column}' {some(torn)}"
    )
    if not description.allow_shared_groups:
        raise UsageError(
            f"{root}: {told} stand in several splits, so test scores would be too good; split by "
            "group, or say allow_shared_groups: true in dataset.yaml"
        )
    log.warning("%s: %s stand in several splits; test scores may be too good", root, told)
