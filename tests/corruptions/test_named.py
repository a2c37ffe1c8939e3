"""What a corruption's name means, and whose parameters it takes."""

from __future__ import annotations

import pytest

from medplus.corruptions import Corruption, chosen, of_dataset
from medplus.corruptions.table import FAMILIES, NAMES, TABLE
from medplus.datasets import catalog
from medplus.errors import UsageError


def test_every_dataset_has_a_list_of_five_severities_and_no_other_names():
    assert set(catalog.FLAGS) | {"grey", "colour"} == set(TABLE)
    for rows in TABLE.values():
        assert set(rows) <= set(NAMES)
        assert {len(row) for row in rows.values()} == {5}


@pytest.mark.parametrize(
    ("text", "parameters"),
    [  # as the paper's package has them
        ("pixelate:1@breastmnist", (0.30,)),
        ("motion_blur:5@breastmnist", (17, 12)),
        ("shot_noise:2@pneumoniamnist", (200,)),
        ("characters:5@dermamnist", (6, 10, 0.18)),
        ("bubble:3@pathmnist", (12, 15)),
        ("gaussian_blur:5@organsmnist", (21,)),
        ("jpeg_compression:5@octmnist", (5,)),
        ("contrast_down:5@tissuemnist", (0.4,)),
    ],
)
def test_parameters_are_the_published_ones(text, parameters):
    assert Corruption.parse(text).parameters == parameters
    assert str(Corruption.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gausian_noise:3", "did you mean 'gaussian_noise'"),
        ("gaussian_noise", "severity from 1 to 5"),
        ("gaussian_noise:0", "severity from 1 to 5"),
        ("gaussian_noise:６", "severity from 1 to 5"),
        ("gaussian_noise:3@", "is in the lists of"),
        ("saturate:3@breastmnist", "is in the lists of pathmnist, bloodmnist, colour"),
    ],
)
def test_wrong_name_is_refused_with_what_it_may_be(text, said):
    with pytest.raises(UsageError, match=said):
        Corruption.parse(text)


def test_table_is_the_datasets_or_else_that_of_such_images():
    noise = Corruption.parse("gaussian_noise:3")
    assert noise.settled("dermamnist", 3).table == "dermamnist"
    assert noise.settled("breastmnist", 1).table == "grey"  # which has no such noise of its own
    assert noise.settled("colour", 1).table == "grey"  # a user's data of an unlucky name
    assert Corruption("pixelate", 1, "octmnist").settled("breastmnist", 1).table == "octmnist"
    with pytest.raises(UsageError, match="colour images"):
        Corruption.parse("saturate:1").settled("mine", 1)


def test_families_stand_for_what_the_dataset_has_of_them():
    assert chosen(["noise", "jpeg"], "breastmnist", 1) == ("speckle_noise", "jpeg_compression")
    assert chosen(["noise"], "mine", 1) == FAMILIES["noise"]
    assert chosen(["contrast"], "mine", 3) == ("contrast_up", "contrast_down")
    assert of_dataset("breastmnist", 1) == tuple(TABLE["breastmnist"])
    assert "saturate" in of_dataset("mine", 3)
    assert "saturate" not in of_dataset("mine", 1)
    assert not set(of_dataset("mine", 3)) & set(FAMILIES["task-specific"])
    with pytest.raises(UsageError, match="did you mean 'noise'"):
        chosen(["nois"], "mine", 1)
