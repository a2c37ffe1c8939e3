"""Which mistakes are shown."""

from __future__ import annotations

import numpy as np

from medplus.analysis.panel.errors import confident_mistakes, random_cases
from medplus.vocabulary import MULTI_LABEL

MANY = [f"class {i}" for i in range(9)]


def test_mistakes_are_the_surest_first(panel_with):
    found = panel_with(MANY[:3], "multi-class")
    true, score = found.predictions["test_true"][:, 0], found.predictions["test_score"]
    wrong = np.flatnonzero(score.argmax(axis=1) != true)
    expected = wrong[np.argsort(-score[wrong].max(axis=1), kind="stable")][:20]
    assert [case.row for case in confident_mistakes(found)] == expected.tolist()
    assert all(case.wrong for case in confident_mistakes(found))


def test_every_cell_of_the_confusion_matrix_is_drawn_from(panel_with):
    found = panel_with(MANY[:3], "multi-class")
    drawn = random_cases(found)
    assert len(drawn) == (found.confusion > 0).sum()
    for caption, cases in drawn.items():
        true, predicted = {case.true for case in cases}, {case.predicted for case in cases}
        assert (len(true), len(predicted)) == (1, 1)
        count = found.confusion[MANY.index(true.pop()), MANY.index(predicted.pop())]
        assert f"{len(cases)} of {count}," in caption


def test_the_same_seed_draws_the_same_and_another_others(panel_with):
    found = panel_with()
    assert random_cases(found) == random_cases(found)
    assert random_cases(found) != random_cases(found, seed=1)


def test_many_cells_do_not_make_many_pictures(panel_with):
    found = panel_with(MANY, "multi-class", n=(30, 600))
    assert (found.confusion > 0).sum() > 40
    assert sum(map(len, random_cases(found).values())) == 40


def test_of_labels_it_is_found_missed_and_falsely_seen(panel_with):
    found = panel_with(["mass"], MULTI_LABEL)
    cells = {(c.true, c.predicted) for cases in random_cases(found).values() for c in cases}
    assert cells == {("mass", "mass"), ("mass", "no mass"), ("no mass", "mass")}
