"""The tables' files: what they hold, and that names cannot break them."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from decimal import Decimal
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from medplus.analysis.format import p_value, percent, seconds
from medplus.analysis.friedman import friedman
from medplus.analysis.gains import resolution_gains
from medplus.analysis.pairwise import compare_pairs
from medplus.analysis.ranking import top_ranks
from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.spread import percentiles
from medplus.reporting.markup import latex, latex_table, markdown, markdown_table
from medplus.reporting.tables import write_tables
from tests.analysis.benchmarks import HOSTILE, document_of, hostile_grid, tiny_grid

CONTRACT = {
    "benchmark": "dataset,protocol,backbone,size,acc_mean,acc_std,auc_mean,auc_std,n_seeds",
    "ranking": "protocol,size,backbone,rank,count,n_settings",
    "resolution_gains": "protocol,backbone,from_size,to_size,improved,n_datasets",
    "percentiles": "backbone,p25,p50,p75",
    "pairwise": "backbone_a,backbone_b,n_datasets,mean_difference,effect_size,favoured,"
    "p_value,threshold,significant,p_holm,significant_holm",
}


@pytest.fixture(scope="module")
def paper():
    return document_of(load_baseline())


@pytest.fixture(scope="module")
def hostile():
    return document_of(hostile_grid(load_baseline()))


@pytest.fixture(scope="module")
def tables(paper):
    return paper.tables


def read(table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (percent, 84.125, "84.12"),  # as numpy rounds
        (percent, 84.135, "84.14"),  # below the half in binary
        (percent, -0.125, "-0.12"),
        (percent, -0.001, "0.00"),
        (percent, np.float64(2.675), "2.68"),
        (percent, float("nan"), ""),
        (p_value, 0.5, "0.50"),
        (p_value, 0.0421, "0.042"),
        (p_value, 0.00049, "0.0005"),
        (p_value, 1e-9, "<0.0001"),
        (seconds, 0.01234, "0.0123"),
        (seconds, 98765.4, "98765"),
        (seconds, 0.0, "0"),
        (markdown, "<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        (markdown, "a`b*c[d]\\", "a\\`b\\*c\\[d\\]\\\\"),
        (markdown, "vit_base_patch16_224 _x_", "vit_base_patch16_224 \\_x\\_"),
        (markdown, "two\nlines\t|", "two lines \\|"),
        (latex, "a_b&c%$#{}", r"a\_b\&c\%\$\#\{\}"),
        (latex, "~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        (latex, "<x>|", r"\textless{}x\textgreater{}\textbar{}"),
        (latex, "[2pt] *", "{[}2pt] {*}"),
        (latex, "a---b", "a-{}-{}-b"),
        (latex, "two\nlines", "two lines"),
    ],
)
def test_numbers_and_names_as_they_are_written(write, value, text):
    assert write(value) == text


# --- CSV --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTRACT)
def test_columns_are_those_of_the_contract(tables, name):
    assert tables[name].csv().splitlines()[0] == CONTRACT[name]


def test_published_results_come_out_as_they_went_in(tables):
    published = pd.read_csv("medplus/analysis/results/data/paper_results.csv", dtype=str)
    protocols = {"endToEnd": "finetune", "linearProbing": "probe", "kNN": "knn"}
    rows = {
        (r["dataset"], r["protocol"], r["backbone"], r["size"]): r
        for r in read(tables["benchmark"])
    }
    for one in published.itertuples():
        row = rows[one.dataset, protocols[one.training_procedure], one.architecture, one.img_size]
        for score in ("acc_mean", "acc_std", "auc_mean", "auc_std"):
            printed = getattr(one, score)
            if isinstance(printed, str):
                assert Decimal(row[score]) == Decimal(printed)
            else:
                assert row[score] == ""


@pytest.mark.parametrize(
    ("name", "compute", "columns"),
    [
        ("ranking", lambda b: top_ranks(b.compared), "size rank count"),
        ("resolution_gains", lambda b: resolution_gains(b.cells), "from_size improved n_datasets"),
        ("pairwise", lambda b: compare_pairs(b.means), "favoured p_value effect_size p_holm"),
        ("percentiles", lambda b: percentiles(b.means), "p25 p50 p75"),
    ],
)
def test_csv_holds_the_statistic(paper, tables, name, compute, columns):
    rows, frame = read(tables[name]), compute(paper.benchmark)
    for column in columns.split():
        for row, value in zip(rows, frame[column], strict=True):
            if isinstance(value, float):
                assert float(row[column]) == (round(value, 2) if name == "percentiles" else value)
            else:
                assert row[column] == str(value)


def test_backbones_share_a_letter_exactly_if_they_share_a_clique(paper, tables):
    letters = {row["backbone"]: set(row["groups"].split()) for row in read(tables["friedman"])}
    cliques = friedman(paper.benchmark.means).cliques
    for a, b in combinations(letters, 2):
        together = any(a in clique and b in clique for clique in cliques)
        assert bool(letters[a] & letters[b]) == together


def test_hostile_names_are_read_back_from_csv(hostile):
    tables = hostile.tables
    assert {row["backbone"] for row in read(tables["benchmark"])} == set(HOSTILE)
    assert {row["backbone"] for row in read(tables["percentiles"])} == set(HOSTILE)


def test_sizes_stay_whole_where_pandas_made_them_floats(paper):
    unlike = pd.DataFrame(
        {"reason": ["x"], "size": [28.0], "acc_mean": [1.0], "runs": [("a", "b")]}
    )
    changed = document_of(tiny_grid(load_baseline()), unlike=unlike)
    (row,) = read(changed.tables["unlike"])
    assert (row["size"], row["n_seeds"], row["runs"]) == ("28", "", "a; b")


def test_what_does_not_apply_has_no_table():
    alone = load_baseline().query("backbone == 'vgg16' and size == 28 and dataset == 'bloodmnist'")
    assert set(document_of(alone.reset_index(drop=True)).tables) == {"benchmark"}
    few = load_baseline().query("size == 28 and dataset in ('bloodmnist', 'octmnist')")
    tables = document_of(few.reset_index(drop=True)).tables
    assert {"ranking", "percentiles", "pairwise", "friedman", "costs"}.isdisjoint(tables)


# --- Markdown ---------------------------------------------------------------------------------


def test_markdown_shows_the_paper_form(tables):
    text = markdown_table(tables["benchmark"].blocks)
    assert len(re.findall(r"^\*\*.*\*\*$", text, flags=re.M)) == 13
    best, second = "**98.20 ± 0.16**", "<u>98.52 ± 0.25</u>"
    assert f"| fine-tuning | VGG16 | **94.85 ± 0.47** | {best} | {second} | 98.77 ± 0.31 |" in text
    assert "| kNN | VGG16 | 71.76 |" in text


@pytest.mark.parametrize("name", ["benchmark", "ranking", "percentiles", "pairwise"])
def test_hostile_names_break_no_markdown(hostile, name):
    text = markdown_table(hostile.tables[name].blocks)
    assert "<script" not in text
    assert "<b>" not in text
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) for line in lines}) <= 1


# --- LaTeX ------------------------------------------------------------------------------------


def test_latex_shows_best_bold_and_second_underlined(tables):
    text = latex_table(tables["benchmark"].blocks)
    assert r"\textbf{94.85 $\pm$ 0.47}" in text
    assert r"\underline{98.52 $\pm$ 0.25}" in text
    assert text.count(r"\begin{table}") == 13
    assert r"\multicolumn{4}{c}{ACC} & \multicolumn{4}{c}{AUC}" in text


def test_long_tables_are_cut_between_groups_into_pages(tables):
    text = latex_table(tables["ranking"].blocks)
    for body in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, flags=re.S):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) <= 50
        assert not rows[0].startswith(" &")  # each page begins with the name of its group


@pytest.mark.parametrize("which", ["paper", "hostile"])
def test_latex_is_well_formed(which, request):
    for table in request.getfixturevalue(which).tables.values():
        text = latex_table(table.blocks)
        opened = []
        for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
            if kind == "begin":
                opened.append(name)
            else:
                assert opened.pop() == name
        assert not opened
        bare = re.sub(r"\\[\\{}$&#%_]", "", text)
        assert bare.count("{") == bare.count("}")
        assert "#" not in bare
        assert "~" not in bare
        assert "%" not in "".join(bare.splitlines(keepends=True)[1:])
        assert bare.count("$") % 2 == 0


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
@pytest.mark.parametrize("which", ["paper", "hostile"])
def test_latex_compiles(which, request, tmp_path):
    tables = request.getfixturevalue(which).tables.values()
    names = [path.stem for path in write_tables(tables, tmp_path)][::3]
    inputs = "\n".join(f"\\input{{{name}}}\\clearpage" for name in names)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage{adjustbox}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


# --- files ------------------------------------------------------------------------------------


def test_every_table_is_written_in_three_languages(tables, tmp_path):
    written = write_tables(tables.values(), tmp_path / "tables")
    names = {path.name for path in written}
    assert names == {f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == names
    assert (tmp_path / "tables" / "pairwise.csv").read_text() == tables["pairwise"].csv()
