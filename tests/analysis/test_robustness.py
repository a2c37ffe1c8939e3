"""What breaks a run, by hand-made scores."""

from __future__ import annotations

import pytest

from medplus.analysis.results.robustness import Case, breaks_it, first_broken, means
from medplus.analysis.robustness import labels_of, section_of, verdict_sentence
from medplus.run.robustness import CleanScores, Point, Robustness, write_robustness


def found(errors, clean=0.1, se=0.01, **more):
    """Return scores: ``{"jpeg_compression": [0.2, 0.3]}`` are the errors at severities 1, 2, …."""

    def scores(error):
        return {
            "balanced_error": error,
            "balanced_error_ci95": (error - 0.05, error + 0.05),
            "acc": 1 - error,
            "auc": None,
            "ece": error / 2,
        }

    points = [
        Point(
            corruption=name, severity=level, table="grey", cost=error - clean, cost_se=se,
            **scores(error),
        )
        for name, row in errors.items()
        for level, error in enumerate(row, 1)
    ]  # fmt: skip
    known = {"run_id": "r", "dataset_digest": "d", **more}
    return Robustness(clean=CleanScores(**scores(clean)), points=points, **known)


def case(scores, backbone="resnet18", protocol="finetune", size=224, seed=1, run="runs/x"):
    return Case("mine", protocol, backbone, size, seed, run, scores)


def test_errors_are_relative_to_alexnets_as_the_paper_has_it():
    ours = case(found({"a": [0.2, 0.4], "b": [0.1, 0.1]}, clean=0.1))
    alexnet = case(found({"a": [0.4, 0.8], "b": [0.3, 0.5]}, clean=0.2), backbone="alexnet")
    got = means(ours, [ours, alexnet])
    assert got.corrupted == pytest.approx((0.3 + 0.1) / 2)
    assert got.corrupted_ece == pytest.approx(0.1)
    # The mean over corruptions of ratios, each of means over severities.
    assert got.relative == pytest.approx((0.3 / 0.6 + 0.1 / 0.4) / 2)
    assert got.relative_loss == pytest.approx(((0.3 - 0.1) / (0.6 - 0.2) + 0.0) / 2)
    of_itself = means(alexnet, [ours, alexnet])
    assert (of_itself.relative, of_itself.relative_loss) == pytest.approx((1, 1))


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "resnet50"},
        {"protocol": "probe"},
        {"size": 28},
        {"scores": found({"a": [0.4]})},
        {"scores": found({"a": [0.4, 0.8]}, dataset_digest="other")},
    ],
)
def test_what_was_not_tested_alike_is_no_measure(other):
    ours = case(found({"a": [0.2, 0.4]}))
    of_alexnet = {"scores": found({"a": [0.4, 0.8]}), "backbone": "alexnet", **other}
    got = means(ours, [ours, case(**of_alexnet)])
    assert got.relative is None
    assert "left out" in " ".join(section_of([ours, case(**of_alexnet)]).notes)


def test_where_alexnet_loses_nothing_there_is_no_relative_loss():
    ours = case(found({"a": [0.2]}))
    alexnet = case(found({"a": [0.1]}, clean=0.1), backbone="alexnet")
    got = means(ours, [alexnet])
    assert got.relative == pytest.approx(2)
    assert got.relative_loss is None


def test_first_broken_is_the_lowest_severity_that_costs_more_than_chance():
    scores = found({"a": [0.11, 0.2, 0.5], "b": [0.1, 0.25, 0.3], "c": [0.115, 0.1, 0.1]})
    first = first_broken(scores)
    assert (first.corruption, first.severity) == ("b", 2)  # it costs more than a there
    said = breaks_it(scores)
    assert said.startswith("b at severity 2 costs 15.0 points of balanced accuracy")
    assert said.endswith("a at severity 3 costs most, 40.0 points.")
    # 1.9 standard errors are much for one, and nothing for the best of nine.
    assert first_broken(found({"a": [0.119, 0.1, 0.1], "b": [0.1] * 3, "c": [0.1] * 3})) is None


def test_nothing_lost_is_said():
    assert "nothing that was tried" in breaks_it(found({"a": [0.1, 0.05]}))
    assert "no loss is more than chance" in breaks_it(found({"a": [0.11]}))


def test_labels_say_what_differs_and_no_more():
    scores = found({"a": [0.2]})
    cases = [
        case(scores, "vgg16", size=28),
        case(scores, "vgg16", size=64),
        case(scores, "pixels", "knn", seed=None, run="runs/k5"),
        case(scores, "pixels", "knn", seed=None, run="runs/k11"),
        case(scores, "lcnet_035", seed=1),
        case(scores, "lcnet_035", seed=2),
    ]
    assert labels_of(cases) == [
        "VGG16, fine-tuning, 28 px",
        "VGG16, fine-tuning, 64 px",
        "raw pixels, kNN, k5",
        "raw pixels, kNN, k11",
        "lcnet_035, fine-tuning, seed 1",
        "lcnet_035, fine-tuning, seed 2",
    ]


def test_verdict_takes_seeds_together(tmp_path):
    errors = [{"a": [0.10, 0.20], "b": [0.30]}, {"b": [0.10], "a": [0.14, 0.30]}]
    for run, own in enumerate(errors):
        write_robustness(make(tmp_path / str(run)), found(own, clean=0.1, se=0.02))
    make(tmp_path / "unscored")
    runs = [str(tmp_path / name) for name in ("0", "unscored", "1")]
    told = verdict_sentence(runs)
    # b costs 20 and 0 points, a at severity 2 costs 10 and 20: by one seed alone b or a is first.
    assert told.startswith("On corrupted images, the mean over 2 seeds: b at severity 1 costs 10.0")
    assert told.endswith("a at severity 2 costs most, 15.0 points.")
    assert verdict_sentence(runs[:2]).startswith("On corrupted images: b at severity 1 costs 20.0")
    assert verdict_sentence(runs[1:2]) is None


def make(folder):
    folder.mkdir()
    return folder
