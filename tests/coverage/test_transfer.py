"""What the cheap seems to predict of backbones that are truly equal, by what it is ranked on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medplus.analysis.transfer import transfer

pytestmark = pytest.mark.extensive


def table_of_equals(rng: np.random.Generator) -> pd.DataFrame:
    """Return cells of ten equal backbones on twelve datasets of 200 val and 200 test images.

    What a backbone sees in an image is the same under both protocols.
    """
    rows = []
    for dataset in range(12):
        seen = rng.normal(size=(2, 10, 200))
        for protocol in ("knn", "finetune"):
            own = rng.normal(size=(2, 10, 200))
            val, test = 100 * (seen + own < 1.2).mean(axis=2)
            for backbone, scores in enumerate(zip(val, test, strict=True)):
                rows.append((f"d{dataset}", protocol, f"b{backbone}", 28, *scores))
    names = ["dataset", "protocol", "backbone", "size", "val_mean", "acc_mean"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize(("ranked_on", "least", "most"), [("val", 0.0, 0.06), ("test", 0.5, 1.0)])
def test_equals_seem_predictable_on_shared_test_images_only(ranked_on, least, most):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(120):
        cells = table_of_equals(rng)
        if ranked_on == "test":
            cells = cells.drop(columns="val_mean")
        one = transfer(cells, ("knn", 28), ("finetune", 28))
        assert one is not None
        assert one.ranked_on == ranked_on
        found.append(one.predicts)
    assert least <= np.mean(found) <= most
