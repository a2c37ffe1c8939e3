"""Reports to render: the paper's, a partial one of runs, and one whose every name is an attack."""

from dataclasses import replace
from functools import cache

import pandas as pd

from medplus.analysis.document import Document
from medplus.analysis.paired import _COLUMNS as PAIRED
from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.results.reference import Reference
from medplus.analysis.results.runs import RUN_COLUMNS
from medplus.analysis.results.select import UNLIKE_COLUMNS
from medplus.analysis.section import Gallery, Picture, Section
from medplus.analysis.table import Table
from medplus.reporting.figures import render as figure_file
from medplus.reporting.page import PageLinks, render_page
from tests.analysis.benchmarks import document_of, drawn

ATTACK = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>'\"&|\u2028 %{x}"
"""A name that does harm wherever it is taken for HTML, for JSON's end or for a template."""


@cache
def paper() -> Document:
    return document_of(
        load_baseline(),
        title="The paper's benchmark",
        source="Published numbers of 12 datasets, 3 protocols, 10 backbones and 4 sizes",
        created="2026-01-02T03:04:05+00:00",
        baseline=True,
    )


def of_runs(
    dataset: str = "breastmnist", backbone: str = "my_net", words: str = "word"
) -> Document:
    """A small, partial grid with all that runs have and the paper lacks."""
    rows = []
    names = ("pneumoniamnist", "retinamnist", "bloodmnist", "dermamnist", "octmnist", dataset)
    networks = ("resnet18", "vit_base_patch16_224.dino", "vgg16", backbone)
    for d, name in enumerate(names):
        for p, protocol in enumerate(("probe", "knn")):
            for b, network in enumerate(networks):
                for size in (28, 64):
                    if name == dataset and network == "resnet18" and size == 64:
                        continue  # a hole
                    acc = 70 + 3 * d + 2 * p + (b * 7 + d * 5) % 4 + size / 40 + 0.001 * b
                    rows.append(
                        {
                            "dataset": name, "protocol": protocol,
                            "backbone": network, "size": size,
                            "acc_mean": acc,
                            "acc_std": 0.51 if protocol == "probe" else float("nan"),
                            "auc_mean": acc + 5, "auc_std": float("nan"),
                            "n_seeds": 3 if protocol == "probe" else 1,
                            "acc_low": acc - 4.25, "acc_high": acc + 3.75,
                            "device_seconds": 2.0 + b + size / 8 + 10 * (1 - p),
                            "runs": tuple(f"runs/{words}/{name}-{protocol}-{s}" for s in range(3)),
                        }
                    )  # fmt: skip
    cells = pd.DataFrame(rows)
    cells = cells.assign(network=cells["backbone"], weights="w", fit="pad", feature="prelogits",
                         lora="")  # fmt: skip
    shared = cells[(cells["backbone"] == "resnet18") & (cells["size"] == 28)]
    theirs = shared.assign(acc_mean=shared["acc_mean"] - 0.4, acc_std=0.3)
    theirs.iloc[-1, theirs.columns.get_loc("acc_mean")] -= 5
    rivals = pd.concat([theirs, theirs.assign(backbone="vgg16"), theirs.assign(backbone="alexnet")])
    unlike = pd.DataFrame(
        [
            (f"fit resize, not pad {words}", dataset, "knn", backbone, 28, 71.2345, 1,
             f"fit resize, {words}", (f"runs/{words}/other",)),
        ],
        columns=UNLIKE_COLUMNS,
    )  # fmt: skip
    made = document_of(
        cells,
        title=f"Runs {words}",
        source=f"12 runs under runs/{words}",
        runs=_runs_of(cells, words),
        reference=Reference(f"others {words}", rivals),
        tolerance=1.0,
        unlike=unlike,
        conditions={"probe": f"lr 0.0001, {words}", "knn": f"k 11, {words}"},
        skipped=((f"runs/{words}/broken", f"record.json is damaged: {words}"),),
    )
    of_images = (1.5, -0.75, 3.25, 0.24, 0.48, 1000, 156, "0; 1", "val")
    pair = (dataset, "probe", 28, backbone, "resnet18", *of_images)
    table = Table.of(
        "paired", "Best less second", pd.DataFrame([pair], columns=PAIRED.split()), PAIRED
    )
    picture = Picture(b"png", f"A {words}", (f"a line {words}",))
    further = (
        Section("paired", "Best and second", "Best and second", tables=(table,)),
        Section("gallery", "Errors", "Errors", galleries=(Gallery(f"Seen {words}", (picture,)),)),
    )
    kept = (one for one in made.sections if one.name != "paired")
    return replace(made, sections=(*kept, *further))


def _runs_of(cells: pd.DataFrame, words: str) -> pd.DataFrame:
    """Return three runs of each cell."""
    runs = pd.concat([cells.assign(seed=s, acc=cells["acc_mean"] + s - 1) for s in range(3)])
    runs = runs[(runs["protocol"] == "probe") | (runs["seed"] == 1)]
    conditions = {"data": "custom", "weights": f"trained {words}"}
    return runs.assign(
        conditions=[conditions] * len(runs), device="cpu", created="2026", licence="",
        citation=f"{words} (2025)", task="binary-class", run="runs/none",
    ).reindex(columns=[*RUN_COLUMNS, "network", "fit", "feature", "lora"])  # fmt: skip


def render(document: Document, links: PageLinks) -> str:
    """The page with its figures."""
    svgs = {name: figure_file(one, "svg").decode() for name, one in drawn(document).items()}
    return render_page(document, links, svgs)


def attacked() -> Document:
    return of_runs(ATTACK, f"net{ATTACK}", ATTACK)
