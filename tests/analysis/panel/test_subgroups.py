"""Groups of test images: how columns make them, and what is said of the gaps between them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from medplus.analysis.panel.all_classes import panel_of
from medplus.analysis.panel.groups import Grouping, group_images
from medplus.analysis.panel.samples import test_columns as columns_of_test
from medplus.analysis.panel.sections import subgroup_section
from medplus.analysis.panel.subgroups import subgroups
from medplus.errors import UsageError
from tests.analysis.panel.conftest import make_run
from tests.records import make_record


def halves(n: int = 120) -> Grouping:
    rows = np.arange(n)
    return Grouping("half", {"first": rows[: n // 2], "second": rows[n // 2 :]})


def test_groups_have_the_numbers_of_their_images_alone(panel_with):
    found = panel_with(positive="ill")
    (one,) = subgroups(found, [halves()])
    true = found.predictions["test_true"][60:, 0]
    score = found.predictions["test_score"][60:].astype(float)
    called = (score[:, 1] > 0.5).astype(int)
    second = one.groups[1].measures
    assert second["ACC"].value == pytest.approx((true == called).mean())
    assert second["AUC"].value == pytest.approx(roc_auc_score(true, score[:, 1]))
    assert second["sensitivity"].value == pytest.approx(recall_score(true == 0, called == 0))
    assert second["specificity"].value == pytest.approx(recall_score(true, called))


def test_small_groups_are_named_and_not_shown(panel_with):
    rows = np.arange(120)
    grouping = Grouping("scanner", {"A": rows[:101], "B": rows[101:]})
    found = panel_with(positive="ill")
    (one,) = subgroups(found, [grouping])
    assert [group.name for group in one.groups] == ["A"]
    assert one.too_small == (("B", 19),)
    assert one.gaps == ()
    assert "B (19)" in subgroup_section(found, [one]).notes[0]


def test_rates_of_a_class_with_few_images_in_a_group_are_left_out():
    record, predictions = make_run(["ill", "well"], "binary-class")
    predictions["test_true"][:60] = 1
    predictions["test_true"][:4] = 0
    found = panel_of(record, predictions, "ill")
    (one,) = subgroups(found, [halves()])
    assert one.groups[0].n_positive == 4
    assert one.groups[0].measures["sensitivity"].to_dict() is None
    assert one.groups[0].measures["specificity"].to_dict() is not None
    assert {gap.measure for gap in one.gaps} == {"ACC", "specificity"}


def test_groups_that_are_equal_have_no_gap():
    record, predictions = make_run(["ill", "well"], "binary-class")
    predictions["test_score"][:] = np.eye(2)[predictions["test_true"][:, 0]]
    (one,) = subgroups(panel_of(record, predictions, "ill"), [halves()])
    assert len(one.groups) == 2 and one.gaps == ()


def test_a_group_on_which_the_run_only_guesses_stands_out():
    record, predictions = make_run(["ill", "well"], "binary-class", clarity=6.0)
    predictions["test_score"][60:] = np.random.default_rng(1).random((60, 2))
    (one,) = subgroups(panel_of(record, predictions, "ill"), [halves()])
    for gap in one.gaps:
        assert (gap.best, gap.worst) == ("first", "second")
        assert gap.difference.low > 0.1
        assert gap.p_holm < 0.01


def test_random_groups_seldom_stand_out(panel_with):
    rng = np.random.default_rng(0)
    groupings = []
    for number in range(12):
        rows = rng.permutation(120)
        groupings.append(Grouping(str(number), {"a": rows[:60], "b": rows[60:]}))
    found = subgroups(panel_with(["x", "y", "z"], "multi-class", n=(30, 120)), groupings)
    p_values = np.array([gap.p_value for one in found for gap in one.gaps if gap.measure == "ACC"])
    assert (p_values < 0.1).mean() <= 0.25
    assert all(gap.p_holm >= gap.p_value for one in found for gap in one.gaps)


def test_quarters_hold_equally_many_and_say_their_ends():
    ages = [str(age) for age in range(20, 60)]
    members = group_images({"age": ages}, "age:q4").members
    assert {name: len(rows) for name, rows in members.items()} == {
        "20–29": 10, "30–39": 10, "40–49": 10, "50–59": 10
    }  # fmt: skip


def test_words_are_groups_as_they_stand_and_numbers_in_their_order():
    members = group_images({"ward": ["10", "9", "", "x"]}, "ward").members
    assert {name: rows.tolist() for name, rows in members.items()} == {
        "9": [1], "10": [0], "x": [3], "not given": [2]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("agee", "no such column (it has age, sex); did you mean 'age'?"),
        ("age:month", "unknown 'month'; use age:decade"),
        ("sex:decade", "holds 'f', which is no number; leave :decade out"),
    ],
)
def test_a_column_that_cannot_be_grouped_is_refused(by, words):
    with pytest.raises(UsageError) as refused:
        group_images({"age": ["30"], "sex": ["f"]}, by)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a/1.png", "b/2.png"], "path,age\nb/2.png,60\na/1.png,50\n"),
        (["a/1.png", "b/2.png"], "filename,age\n2.png,60\n1.png,50\nother.png,1\n"),
        (None, "index,age\n1,60\n0,50\n"),
        (None, "split,index,age\ntrain,0,1\ntest,0,50\ntesting,1,60\n"),
    ],
)
def test_rows_of_a_table_find_their_images(names, text, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(text)
    predictions = {"test_index": np.array([0, 1])}
    if names:
        predictions["test_name"] = np.array(names)
    assert columns_of_test(make_record(), predictions, table)["age"] == ["50", "60"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,age\nx.png,60\n", "needs a column index"),
        ("index,age\n7,60\n", "none of its 1 rows is of a test image"),
        ("index,age\n0,60\n0,61\n", "line 3: the index '0'"),
    ],
)
def test_a_table_of_other_images_is_refused(text, words, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(UsageError) as refused:
        columns_of_test(make_record(), {"test_index": np.array([0])}, table)
    assert words in str(refused.value)


def test_without_a_table_of_its_own_a_dataset_needs_one_named():
    with pytest.raises(UsageError, match=r"name one with --table FILE\.csv"):
        columns_of_test(make_record(dataset="breastmnist"), {"test_index": np.array([0])})
