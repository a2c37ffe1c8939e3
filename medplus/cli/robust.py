"""`medplus robust`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.output import Output, say
from medplus.errors import UsageError

if TYPE_CHECKING:
    from medplus.robustness.robust import Scored


def _levels(ctx: click.Context, param: click.Parameter, text: str) -> list[int]:
    """Return what ``1-5``, ``3`` or ``1,3,5`` means."""
    levels: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise UsageError(f"--severity {text} is none; write it as 3, as 1,3,5 or as 1-5")
        levels.update(range(int(first), int(last or first) + 1))
    return sorted(levels)


@click.command()
@click.argument("runs", metavar="RUN...", type=options.FOLDER, nargs=-1, required=True)
@options.several(
    "--corruptions",
    "corruptions",
    help="Such as speckle_noise, or families: digital, noise, blur, color, task-specific; jpeg, "
    "contrast, brightness, gamma. Repeat or use commas.  [default: those that MedMNIST-C has for "
    "the dataset; of other data all but the task-specific]",
)
@click.option(
    "--severity",
    "severities",
    default="1-5",
    callback=_levels,
    help="From 1 to 5: one, a range, or several with commas.",
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Of a folder of runs take every one, not only the best by val.",
)
@click.option("--overwrite", is_flag=True, help="Score again what has been scored.")
@options.batch_size
@options.code()
@click.option(
    "--data-root",
    type=options.FOLDER,
    help="Folder of the datasets.  [default: where the run's lay]",
)
@click.option("--out", type=options.FOLDER, help="Also write tables and figures there.")
@options.device
@options.store_or_root
@options.common
def robust(
    output: Output,
    runs: tuple[Path, ...],
    corruptions: tuple[str, ...] | None,
    store_root: Path | str,
    out: Path | None,
    **settings: Any,
) -> None:
    """Score each RUN on test images made worse as in MedMNIST-C, and say what breaks it.

    A RUN is the folder of a run of knn, probe or finetune, or a folder of such. Nothing is trained:
    heads are scored on embeddings of corrupted test images, networks on the images. The scores are
    kept in the run's folder, where medplus report finds them; what has been scored is not scored
    again.

    \b
    medplus robust runs/probe/breastmnist
    medplus robust runs/probe/…/RUN --corruptions noise,blur --severity 1,3,5 --out robust
    """  # noqa: D301 - click wants the control character
    from medplus.robustness.robust import robust as score

    scored = score(
        list(runs), corruptions or (), store=store_root, progress=output.progress, **settings
    )
    from medplus.analysis.robustness import section_of

    section = section_of([one.case for one in scored])
    document: dict[str, Any] = {
        "runs": [one.to_dict() for one in scored],
        "sentences": list(section.sentences),
        "notes": list(section.notes),
    }
    if out is not None:
        from medplus.reporting.sections import write_sections

        document["files"] = [str(path) for path in write_sections([section], out)]
    output.result(document, lambda: _show(section, scored, out))


def _show(section: Any, scored: list[Scored], out: Path | None) -> None:
    from medplus.cli.tables import print_tables

    print_tables(tuple(reversed(section.tables)))
    say("", *section.sentences, *(f"Note: {note}" for note in section.notes))
    if not sum(one.computed for one in scored):
        say("All of it was known; --overwrite scores it again.")
    if out is not None:
        say(f"Tables and figures: {out}")
