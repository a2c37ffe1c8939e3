"""Tables that fit: what is told once, what is left out, what is folded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from medplus.cli.tables import Column, fit_columns, percent, print_records, print_table
from medplus.run.record import RunRecord
from tests.records import make_record

COLUMNS = (
    Column("name"), Column("size", right=True), Column("score", right=True),
    Column("more", rank=2), Column("most", rank=1),
)  # fmt: skip
ROWS = [("alpha", "28", "1.00", "mmmm", "nnnn"), ("beta", "28", "2.00", "oooo", "pppp")]


def names(indices: Sequence[int]) -> list[str]:
    return [COLUMNS[i].name for i in indices]


@pytest.mark.parametrize(
    ("width", "same", "kept"),
    [
        (30, [], ["name", "size", "score", "more", "most"]),  # 5 + 4 + 5 + 4 + 4, four gaps of 2
        (29, ["size"], ["name", "score", "more", "most"]),
        (24, ["size"], ["name", "score", "more", "most"]),
        (23, ["size"], ["name", "score", "more"]),
        (17, ["size"], ["name", "score"]),
        (1, ["size"], ["name", "score"]),
    ],
)
def test_what_agrees_is_told_once_then_the_least_is_left_out(
    width: int, same: list[str], kept: list[str]
) -> None:
    found = fit_columns(COLUMNS, ROWS, width)

    assert (names(found[0]), names(found[1])) == (same, kept)


def test_a_single_row_keeps_its_columns() -> None:
    assert fit_columns(COLUMNS, ROWS[:1], 20)[0] == []


def test_foldable_text_counts_with_its_least_width() -> None:
    columns = (Column("a"), Column("path", least=10))
    rows = [("x", "p" * 40), ("y", "q" * 40)]

    assert fit_columns(columns, rows, 13) == ([], [0, 1])


@pytest.mark.parametrize("width", [23, 25, 30, 60])
def test_printed_table_is_no_wider_than_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    print_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()

    assert max(len(line.rstrip()) for line in lines) <= width
    assert any("alpha" in line and "1.00" in line for line in lines)
    assert (width >= 30) != any("size 28" in line for line in lines)


def test_a_pipe_gets_every_column_uncut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    print_table((Column("path"), *COLUMNS), [("x" * 300, *ROWS[0])])

    assert "x" * 300 in capsys.readouterr().out


def test_markup_in_names_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table((Column("name"),), [("[red]x[/red]",), ("[/y]",)])

    printed = capsys.readouterr().out
    assert "[red]x[/red]" in printed
    assert "[/y]" in printed


def record(**changes: Any) -> RunRecord:
    scores = {"acc": 0.5, "auc": 0.75, "balanced_accuracy": 0.5, "macro_f1": 0.5, "ece": 0.1}
    fields: dict[str, Any] = {
        "run_id": "k1-0", "protocol": "knn", "size": 8, "backbone": "pixels", "classes": 2, "k": 1,
        "task": "binary-class", "selected": True,
        "metrics": {"val": scores, "test": {**scores, "acc_ci95": [0.4, 0.6]}},
    }  # fmt: skip
    return make_record(**(fields | changes))


def test_the_best_is_marked_only_where_there_was_a_choice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_records([record()])
    assert "★" not in capsys.readouterr().out

    print_records([record(), record(k=5, selected=False)])
    starred = [line for line in capsys.readouterr().out.splitlines() if "★" in line]
    assert len(starred) == 1


def test_undefined_auc_is_a_dash_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    run = record()
    lacking = {**run.metrics["test"], "auc": None, "missing_classes": [1]}

    print_records([record(metrics={"val": run.metrics["val"], "test": lacking})])

    printed = capsys.readouterr().out
    assert "–" in printed
    assert "test split lacks positives or negatives of class 1, so its AUC is undefined" in printed
    lacking["missing_classes"] = [0]
    print_records([record(classes=["ill", "well"], metrics={"test": lacking})])
    assert "negatives of ill, so its AUC" in capsys.readouterr().out


def columns_of(printed: str) -> list[str]:
    [head] = [
        line for line in printed.splitlines() if line.lstrip().startswith(("dataset", "prot"))
    ]
    return re.split(r"\s{2,}", head.strip())


FINETUNED = {
    "protocol": "finetune", "k": None, "store": None, "seed": 7, "lr": 1e-4, "weight_decay": 0.01,
    "epochs_run": 12, "run_id": "paper-0", "path": "runs/finetune/toy/8/pixels/paper-0",
}  # fmt: skip


def test_columns_are_those_that_the_runs_have(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([record()])
    assert columns_of(capsys.readouterr().out)[2:5] == ["backbone", "k", "val ACC"]

    print_records([record(**FINETUNED)])
    printed = capsys.readouterr().out
    assert columns_of(printed) == [
        "dataset", "size", "backbone", "seed", "lr", "wd", "epochs", "val ACC", "test ACC",
        "95 % interval", "bal. ACC", "test AUC", "ECE",
    ]  # fmt: skip
    assert [word in printed for word in (" 7 ", " 0.0001 ", " 12 ")] == [True] * 3


def test_runs_of_several_protocols_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([record(), record(**FINETUNED)])

    printed = capsys.readouterr().out
    assert columns_of(printed)[:6] == ["protocol", "dataset", "size", "backbone", "k", "seed"]
    assert [line.split()[0] for line in printed.splitlines() if " pixels " in line] == [
        "knn", "finetune",
    ]  # fmt: skip
    assert "None" not in printed
    assert "★" not in printed


@pytest.mark.parametrize(
    ("splits", "shown"),
    [
        (("test",), ["test ACC", "95 % interval", "bal. ACC", "test AUC"]),
        (("val",), ["val ACC", "95 % interval", "bal. ACC", "val AUC"]),
        (("train", "test"), ["train ACC", "test ACC", "95 % interval", "bal. ACC", "test AUC"]),
    ],
)
def test_only_splits_that_were_scored_are_shown(
    splits: tuple[str, ...], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    scores = record().metrics["test"]

    print_records([record(metrics=dict.fromkeys(splits, scores))])

    assert columns_of(capsys.readouterr().out)[4:-1] == shown


def test_what_runs_differ_in_stands_in_their_rows(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {"backbone": "resnet18", "weights": "w"}
    print_records([record(**fields), record(**fields | {"weights": "none"})])
    assert columns_of(capsys.readouterr().out)[3:5] == ["weights", "k"]
    print_records([record(**fields), record(**fields, k=5)])
    assert "weights" not in capsys.readouterr().out


def test_of_a_long_search_the_choice_is_shown_and_of_how_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_records([record(k=k, selected=k == 9) for k in range(1, 14)])
    printed = capsys.readouterr().out
    assert columns_of(printed)[3:5] == ["k", "chosen of"]
    [row] = [line.split() for line in printed.splitlines() if " pixels " in line]
    assert row[3:5] == ["9", "13"]


def test_always_saying_the_most_frequent_class_stands_beside_the_score(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = record()
    metrics = {**run.metrics, "test": {**run.metrics["test"], "baseline_acc": 0.731}}
    print_records([record(metrics=metrics)])
    assert "73.10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["runs/knn/toy/8/pixels/a", "other/knn/toy/8/pixels/a"], "Records: other, runs"),
        (["run/evaluations/toy-8-a", "run/evaluations/toy-8-b"], "Records: run/evaluations"),
        (["a/evaluations/x", "b/evaluations/x"], "Records: evaluations in the folder of each run"),
    ],
)
def test_where_records_lie_is_said(
    paths: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_records([record(path=path) for path in paths])

    assert capsys.readouterr().out.splitlines()[-1] == says


@pytest.mark.parametrize(
    ("source", "says"), [("phantom", "synthetic data"), ("unofficial", "not the official one")]
)
def test_odd_sources_are_said(source: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_records([record(data_source=source)])

    assert says in capsys.readouterr().out


def test_percent() -> None:
    assert percent(0.12345) == "12.35"
    assert percent(1.0) == "100.00"
    assert percent(None) == "–"
