"""What a report says over folds, and of more labels, where that was asked, and else nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medplus.analysis.document import analyse
from medplus.analysis.drawing.style import look
from medplus.analysis.load import benchmark_of
from medplus.analysis.results.runs import read_runs
from medplus.curves.curve import curve
from medplus.errors import RunError
from medplus.heads.knn import knn
from medplus.run.foldmeans import summarise
from medplus.run.folds import Folds

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture(scope="module")
def store(write_store):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, n) for n in (90, 40, 60)]
    values = [(rng.normal(size=(len(y), 5)) + y[:, None]).astype("f4") for y in labels]
    return write_store(values, labels, classes=2, task="binary-class", data_source="custom")


@pytest.fixture(scope="module")
def folded(store, new_folder):
    runs = new_folder()
    knn(store, (3, 5), runs=runs)
    return runs, knn(store, (3, 5), runs=runs, folds=Folds(4, 2))


@pytest.fixture(scope="module")
def document(store, folded):
    runs, _ = folded
    curve(store, (1, 2, 5, 10), episodes=3, protocols=("knn",), runs=runs, target=0.8)
    return analyse(benchmark_of(read_runs(runs), "here"))


def test_the_mean_over_folds_stands_beside_its_corrected_interval(document, folded):
    [section] = [one for one in document.sections if one.name == "folds"]
    facts = [record.folds for record in folded[1]]
    values = [acc for fact in facts for acc in fact.acc]
    n_train, n_test = (
        np.mean([n for fact in facts for n in getattr(fact, name)])
        for name in ("n_train", "n_test")
    )
    found = summarise(values, n_train, n_test)
    row = section.tables[0].frame.iloc[0]
    assert row["acc_mean"] == pytest.approx(100 * found.value)
    assert [row["low"], row["high"]] == pytest.approx([100 * end for end in found[1:]])
    assert "2 × 4 folds" in section.sentences[0]


def test_the_verdict_has_a_sentence_of_each(document):
    [verdict] = document.verdicts
    assert sum(sentence.startswith("Over 2 × 4 folds") for sentence in verdict.sentences) == 1
    asked = [s for s in verdict.sentences if s.startswith("Would more labels help?")]
    assert len(asked) == 1
    assert "80.0 %" in asked[0]


def test_the_figures_can_be_drawn(document):
    with look():
        for figure in document.figures:
            if figure.name == "folds" or figure.name.startswith("labels"):
                assert figure.draw().axes


def test_what_was_not_asked_is_not_shown(store, tmp_path):
    knn(store, 3, runs=tmp_path)
    names = {one.name for one in analyse(benchmark_of(read_runs(tmp_path), "here")).sections}
    assert not names & {"folds", "labels"}


def test_folds_and_curves_of_what_is_not_asked_are_not_shown(store, document, folded):
    runs = read_runs(folded[0])
    others = [replace(one, dataset="other") for one in runs.curves]
    runs = replace(runs, curves=(*others, *runs.curves))
    kept = benchmark_of(runs, "here", only=[("dataset", store.info.dataset)])
    assert len(kept.curves) == len(kept.folded) / len(runs.folded) == 1


def test_runs_over_folds_alone_are_named_with_the_report_that_reads_them(store, tmp_path):
    knn(store, 3, runs=tmp_path, folds=Folds(3))
    with pytest.raises(RunError, match=r"medplus report .*folds3/repeat0 --out"):
        read_runs(tmp_path)


def test_a_damaged_curve_is_skipped_and_told(store, tmp_path):
    knn(store, 3, runs=tmp_path)
    made = curve(store, (1, 2), episodes=2, protocols=("knn",), runs=tmp_path)
    made.path.write_text("{}")
    found = read_runs(tmp_path)
    assert not found.curves
    assert [path for path, _ in found.skipped] == [str(made.path)]
