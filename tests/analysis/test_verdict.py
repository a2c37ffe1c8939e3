"""The verdict: chosen on val, honest about what test can tell, and never a random network."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medplus.analysis.results.runs import read_runs
from medplus.analysis.results.select import select_alike
from medplus.analysis.verdict import verdicts_on
from medplus.metrics.intervals import proportion_interval
from medplus.run.ledger import save_run
from tests.records import make_record


@pytest.fixture
def verdicts(tmp_path):
    """Return a function that saves runs and returns the verdicts on them.

    A run is ``(backbone, val ACC in percent, test images right of 100)`` and fields of its record.
    """
    runs = tmp_path / "runs"
    true = (np.arange(100) % 2)[:, None].astype("u1")

    def judge(*made, saved=None):
        for number, (backbone, val, right, fields) in enumerate(made):
            wrong = np.arange(100) >= right
            score = np.eye(2, dtype="f4")[np.where(wrong, 1 - true[:, 0], true[:, 0])]
            fields = {"weights": "pretrained", **fields}
            ends = list(proportion_interval(~wrong[:, None]))
            test = {"acc": right / 100, "acc_ci95": ends, **fields.pop("test", {})}
            record = make_record(
                runs, backbone=backbone, run_id=f"run-{number:08}",
                metrics={"val": {"acc": val / 100}, "test": test}, **fields,
            )  # fmt: skip
            own = {"val_true": true[:40], "val_score": score[:40], "test_true": true,
                   "test_score": score, "test_index": np.arange(100)}  # fmt: skip
            save_run(record, saved or own)
        return verdicts_on(select_alike(read_runs(runs).table, tuned="val").runs)

    return judge


def test_the_best_on_val_is_taken_whatever_test_says(verdicts):
    [verdict] = verdicts(("a", 90, 70, {}), ("b", 80, 95, {}))
    assert verdict.best.backbone == "a"
    assert verdict.best.test_acc == pytest.approx(0.70)
    assert verdict.best.test_acc_ci95 == pytest.approx(proportion_interval([[1]] * 70 + [[0]] * 30))


def test_what_cannot_be_told_from_the_best_is_named_and_the_cheapest_of_it(verdicts):
    cheap = {"cost": {"device_seconds": 1.0}, "protocol": "finetune"}
    dear = {"cost": {"device_seconds": 50.0}, "protocol": "finetune"}
    [verdict] = verdicts(("a", 90, 90, dear), ("b", 80, 89, cheap), ("c", 70, 50, cheap))
    assert [one.backbone for one in verdict.not_distinguishable] == ["b"]
    assert verdict.cheapest.backbone == "b"
    assert any("50.0 times cheaper" in sentence for sentence in verdict.sentences)


def test_random_networks_are_no_answer_while_trained_ones_are_there(verdicts):
    random = {"weights": "none"}
    [verdict] = verdicts(("a", 95, 95, random), ("a", 80, 80, {}))
    assert verdict.best.weights == "pretrained"
    assert verdict.n_candidates == 1


def test_a_network_that_does_not_beat_the_majority_is_not_recommended(verdicts):
    made = {"test": {"baseline_acc": 0.7, "auc": 0.81}}
    [verdict] = verdicts(("a", 90, 72, made), ("b", 80, 71, made))
    assert verdict.baseline_acc == 0.7
    assert verdict.sentences[0].startswith("By ACC none is recommended, not even a ")
    assert "do not rely on it" in verdict.sentences[1]
    assert "test AUC, 81.0 %" in verdict.sentences[1]
    assert not verdict.to_dict()["beats_majority"]


@pytest.mark.parametrize(
    ("right", "says"),
    [(90, "is no better."), (85, "is 5.0 points below it."), (95, "is 5.0 points above it.")],
)
def test_what_a_network_brings_beyond_raw_pixels_is_told(right, says, verdicts):
    pixels = {"fit": "native", "weights": "none"}
    [verdict] = verdicts(("a", 95, right, {}), ("pixels", 80, 90, pixels))
    assert any(s.endswith(f"has 90.0 %, so the network {says}") for s in verdict.sentences)


def test_what_is_better_on_test_is_not_called_worse(verdicts):
    [verdict] = verdicts(("a", 90, 60, {}), ("b", 80, 95, {}))
    assert [one.backbone for one in verdict.better] == ["b"]
    assert not verdict.worse
    assert any(s.startswith("The only other is better on these") for s in verdict.sentences)


@pytest.mark.parametrize("groups", [None, np.array(["ann", "bob"]).repeat(50)])
def test_so_few_images_or_patients_tell_nothing_apart_and_the_verdict_says_so(verdicts, groups):
    n = 5 if groups is None else 100
    true = (np.arange(n) % 2)[:, None].astype("u1")
    score = np.eye(2, dtype="f4")[true[:, 0]]
    saved = {"val_true": true, "val_score": score, "test_true": true}
    if groups is not None:
        saved["test_group"] = groups
    made = [(("a", 90, 100, {}), score), (("b", 80, 0, {}), 1 - score)]
    for one, scored in made:
        [verdict] = verdicts(one, saved={**saved, "test_score": scored})
    assert [one.backbone for one in verdict.not_distinguishable] == ["b"]
    assert verdict.smallest_detectable_difference is None
    told = "5 test images" if groups is None else "100 test images in 2 groups such as patients"
    assert f"{told} cannot tell candidates apart, however they differ." in verdict.sentences


def test_a_choice_without_an_auc_on_val_is_told_to_be_by_acc(verdicts):
    true = np.zeros((40, 1), "u1")
    score = np.eye(2, dtype="f4")[true[:, 0]]
    saved = {"val_true": true, "val_score": score, "test_true": true, "test_score": score}
    [verdict] = verdicts(("a", 90, 90, {}), ("b", 80, 90, {}), saved=saved)
    assert "(by ACC, as it has no AUC there)" in verdict.sentences[0]


def test_two_datasets_tell_nothing_apart(verdicts):
    pairs = [
        (name, val, val, {"dataset": on}) for on in "xy" for name, val in (("a", 90), ("b", 40))
    ]
    *_, over_all = verdicts(*pairs)
    assert not over_all.worse
    assert "2 datasets cannot tell candidates apart, however they differ." in (over_all.sentences)


def test_what_lies_below_the_majority_can_be_told_from_it(verdicts):
    [verdict] = verdicts(("a", 90, 50, {"test": {"baseline_acc": 0.99}}))
    assert verdict.sentences[1].startswith("That is 49.0 points below always saying the most")


def test_whether_val_is_large_enough_is_told_by_the_interval_of_its_images(verdicts):
    labels = {"task": "multi-label, binary-class"}
    true = np.zeros((40, 14), "u1")
    score = np.zeros((40, 14), "f4")
    score[:, 0] = np.arange(40) < 20  # of each label that is wrong, thirteen are right
    saved = {"val_true": true, "val_score": score, "test_true": true, "test_score": score}
    [verdict] = verdicts(("a", 96.43, 90, labels), ("b", 94, 90, labels), saved=saved)
    expected = proportion_interval(score == true)[0]
    assert verdict.best.val_low == pytest.approx(expected)
    assert expected > 0.94
    assert not any("too few to choose on" in sentence for sentence in verdict.sentences)


def test_the_interval_of_several_seeds_is_that_of_the_tables(verdicts):
    seeds = [("a", 90, right, {"protocol": "probe", "seed": right}) for right in (80, 90)]
    [verdict] = verdicts(*seeds)
    tests = [stats.binomtest(right, 100) for right in (80, 90)]
    expected = np.mean([one.proportion_ci(method="wilson") for one in tests], axis=0)
    assert verdict.best.test_acc_ci95 == pytest.approx(expected)


def test_several_datasets_have_a_verdict_over_all(verdicts):
    made = [
        (name, val, right + shift, {"dataset": dataset})
        for dataset, shift in (("x", 0), ("y", 1), ("z", 2))
        for name, val, right in (("a", 90, 90), ("b", 80, 60))
    ]
    *each, over_all = verdicts(*made)
    assert [one.dataset for one in each] == ["x", "y", "z"]
    assert (over_all.dataset, over_all.best.backbone) == ("all", "a")
    assert over_all.best.test_acc == pytest.approx(0.91)
    assert over_all.n_test == 3


def test_every_size_is_a_candidate_although_its_images_have_another_digest(verdicts):
    small = {"size": 28, "dataset_digest": "1" * 64, "created": "2026-01-01T00:00:00Z"}
    large = {"size": 64, "dataset_digest": "2" * 64, "created": "2026-01-02T00:00:00Z"}
    [verdict] = verdicts(("a", 90, 90, small), ("a", 70, 70, large))
    assert (verdict.n_candidates, verdict.best.size) == (2, 28)


def test_images_that_were_replaced_take_no_part(verdicts):
    old = {"dataset_digest": "1" * 64, "created": "2026-01-01T00:00:00Z"}
    new = {"dataset_digest": "2" * 64, "created": "2026-01-02T00:00:00Z"}
    [verdict] = verdicts(("a", 90, 90, old), ("b", 70, 70, new))
    assert (verdict.n_candidates, verdict.best.backbone) == (1, "b")


def test_what_could_have_been_seen_is_that_of_a_typical_rival_not_of_a_twin(verdicts):
    rivals = [("twin", 70, 89, {}), ("b", 70, 70, {}), ("c", 70, 70, {})]
    [verdict] = verdicts(("a", 90, 90, {}), *rivals)
    # Of 20 images that only one of two has right: the standard deviation over 100 images.
    differences = np.repeat([1.0, 0.0], [20, 80])
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    expected = z * differences.std(ddof=1) / 10
    assert verdict.smallest_detectable_difference == pytest.approx(expected, rel=1e-3)
