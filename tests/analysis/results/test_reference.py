"""A table of results that runs are set beside."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medplus.analysis.against import beside
from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.results.cells import KEYS, SCORES
from medplus.analysis.results.reference import load_reference
from medplus.errors import MedplusError

HEAD = "dataset,protocol,backbone,size,acc_mean"


def write(folder: Path, *lines: str) -> str:
    path = folder / "theirs.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_a_written_table_is_read_back(tmp_path: Path) -> None:
    paper = load_baseline().head(50)
    path = tmp_path / "theirs.csv"
    paper.to_csv(path, index=False)
    found = load_reference(str(path))
    assert found.name == "theirs"
    assert found.cells[[*KEYS, *SCORES]].equals(paper[[*KEYS, *SCORES]])


def test_columns_that_may_be_missing_and_averages(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEAD},remark", "d,knn,net,28,81.5,x", "average,knn,net,28,81.5,x")
    (cell,) = load_reference(path).cells.to_dict("records")
    assert (cell["acc_mean"], cell["size"], cell["n_seeds"]) == (81.5, 28, 1)
    assert cell["acc_std"] != cell["acc_std"]


def test_rows_of_several_fits_are_for_runs_with_the_same(tmp_path: Path) -> None:
    lines = ("d,knn,net,28,81,pad", "d,knn,net,28,85,native")
    reference = load_reference(write(tmp_path, f"{HEAD},fit", *lines))
    key = {"dataset": "d", "protocol": "knn", "size": 28, "weights": "w", "feature": "f",
           "lora": ""}  # fmt: skip
    fits = [{**key, "backbone": f"net · {fit}", "network": "net", "fit": fit, "acc_mean": 82.0,
             "acc_low": 80.0, "acc_high": 84.0} for fit in ("pad", "native")]  # fmt: skip
    runs = pd.DataFrame([{**one, "conditions": {}} for one in fits])
    found = beside(pd.DataFrame(fits), runs, reference)
    assert list(found["difference"]) == [1.0, -3.0]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["dataset,protocol,backbone,size"], "lacks the column acc_mean"),
        ([HEAD], "has no rows"),
        ([HEAD, "d,knn,net,28,81", "d,svm,net,28,81"], "line 3: protocol is 'svm', not one of"),
        ([HEAD, "d,knn,net,28.5,81"], "line 2: size is '28.5', not a whole number"),
        ([HEAD, "d,knn,net,28,"], "line 2: acc_mean is '', not a percentage"),
        ([HEAD, "d,knn,net,28,810"], "line 2: acc_mean is '810'"),
        ([HEAD, ",knn,net,28,81"], "line 2: dataset is '', not a name"),
        ([HEAD, "d,knn,net,28,81", "d,knn,net,28,82"], "line 3: d, knn, net, 28 px stands there"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(lines: list[str], says: str, tmp_path: Path) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(MedplusError) as error:
        load_reference(path)
    assert str(error.value).startswith(path)
    assert says in str(error.value)
