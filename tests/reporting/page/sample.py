"""Analyses to render: the paper's, a partial one of runs, and one whose every name is an attack."""

from functools import cache

import pandas as pd

from medplus.reporting.against import NEWCOMER_COLUMNS
from medplus.reporting.analyse import PAIRED_COLUMNS
from medplus.reporting.analysis import Analysis, Note
from medplus.reporting.baseline import load_baseline
from medplus.reporting.figures import FIGURES
from medplus.reporting.figures import render as figure_file
from medplus.reporting.page import PageLinks, render_page
from medplus.reporting.select import UNLIKE_COLUMNS
from medplus.reporting.sources import SOURCE_COLUMNS
from medplus.reporting.statistics.intervals import over_datasets, over_samples
from tests.reporting.analyses import analysis_of

ATTACK = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>'\"&|\u2028 %{x}"
"""A name that does harm wherever it is taken for HTML, for JSON's end or for a template."""


def analyse(cells: pd.DataFrame, **changes) -> Analysis:
    certain = [over_datasets(cells), over_samples(cells)]
    fields = {
        "title": "The paper's benchmark",
        "source": "Published numbers of 12 datasets, 3 protocols, 10 backbones and 4 sizes",
        "created": "2026-01-02T03:04:05+00:00",
        "intervals": pd.concat([part for part in certain if len(part)]),
    }
    return analysis_of(cells, **fields | changes)


@cache
def paper() -> Analysis:
    return analyse(
        load_baseline(),
        baseline=True,
        notes=(
            Note("pairwise", "Twelve datasets support a claim only for differences on almost all."),
            Note("benchmark", "k-NN was printed without AUC."),
        ),
        findings=(
            "The best average is 87.55 % ACC: DenseNet-121, fine-tuned at 224 px.",
            "Of 45 pairs 14 differ significantly after Bonferroni's correction.",
            "From 28 to 64 px the mean ACC rises in 350 of 360 cases.",
        ),
    )


def of_runs(
    dataset: str = "breastmnist", backbone: str = "my_net", words: str = "word"
) -> Analysis:
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
    shared = cells[(cells["backbone"] == "resnet18") & (cells["size"] == 28)]
    against = pd.DataFrame(
        {
            "dataset": shared["dataset"], "protocol": shared["protocol"],
            "backbone": shared["backbone"], "size": shared["size"], "acc": shared["acc_mean"],
            "paper_acc": shared["acc_mean"] - 0.4, "paper_std": 0.3, "difference": 0.4,
            "within_spread": False, "within_interval": True, "tolerance": 1.0,
            "passed": [True] * (len(shared) - 1) + [False],
            "differs": words,
        }
    )  # fmt: skip
    seeds = cells[cells["protocol"] == "probe"]
    over_seeds = pd.DataFrame(
        {
            **{key: seeds[key] for key in ("dataset", "protocol", "backbone", "size")},
            "over": "seeds", "mean": seeds["acc_mean"], "low": seeds["acc_mean"] - 1.2,
            "high": seeds["acc_mean"] + 1.2, "n": 3,
        }
    )  # fmt: skip
    unlike = pd.DataFrame(
        [
            (f"fit resize, not pad {words}", dataset, "knn", backbone, 28, 71.2345, 1,
             f"fit resize, {words}", (f"runs/{words}/other",)),
        ],
        columns=UNLIKE_COLUMNS,
    )  # fmt: skip
    difference = (1.5, -0.75, 3.25, 0.24, 0.48, 1000, 156, "0, 1, 2", "val")
    pair = (dataset, "probe", 28, backbone, "resnet18", *difference)
    paired = pd.DataFrame([pair], columns=PAIRED_COLUMNS)
    newcomers = pd.DataFrame(
        [(backbone, "probe", 28, 3, 1, 5, 11, 3, "datasets", f"lr 0.0001, {words}", "")],
        columns=NEWCOMER_COLUMNS,
    )
    base = analyse(cells)
    return analyse(
        cells,
        title=f"Runs {words}",
        source=f"12 runs under runs/{words}",
        intervals=pd.concat([over_seeds, base.intervals]),
        against=against,
        newcomers=newcomers,
        unlike=unlike,
        paired=paired,
        conditions={"probe": f"lr 0.0001, {words}", "knn": f"k 11, {words}"},
        datasets=pd.DataFrame([(dataset, "custom", "", f"{words} (2025)")], columns=SOURCE_COLUMNS),
        skipped=((f"runs/{words}/broken", f"record.json is damaged: {words}"),),
        notes=(
            Note("pairwise", f"Three datasets cannot support a claim {words}"),
            Note("x", words),
        ),
        findings=(f"A finding about {backbone} on {dataset} {words}",),
    )


def render(analysis: Analysis, links: PageLinks) -> str:
    """The page with its figures."""
    figures = {name: make(analysis) for name, make in FIGURES.items()}
    svgs = {name: figure_file(one, "svg").decode() for name, one in figures.items() if one}
    return render_page(analysis, links, svgs)


def attacked() -> Analysis:
    return of_runs(ATTACK, f"net{ATTACK}", ATTACK)
