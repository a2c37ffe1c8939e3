"""Names that would leave their folder, steer the terminal, or pass for markup or code."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medplus.analysis.results.runs import read_runs
from medplus.datasets.description import read_description
from medplus.datasets.imagefolder import read_folder
from medplus.datasets.sources import load_dataset, name_of
from medplus.embeddings.extract import extract
from medplus.errors import UsageError
from medplus.naming import printable
from medplus.progress import new_console
from medplus.reporting import build
from tests.analysis.ledgers import write_record

STEERING = "\x1b]0;owned\x07\x1b[31mred\u202egnp"
"""Sets a terminal's title, its colour, and the direction of its text."""


@pytest.fixture
def images(tmp_path):
    """Return a function that makes a folder of images, two of each class and split."""

    def make(name: str = "images", classes: str = "ab") -> Path:
        rng = np.random.default_rng(0)
        for split in ("train", "val", "test"):
            for label in classes:
                folder = tmp_path / name / split / f"class {label}"
                folder.mkdir(parents=True)
                for i in range(2):
                    pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "..", ".", "~/x", "$(touch x)", "a\\..\\b", "--help", " "]
)
def test_no_name_of_a_dataset_leaves_the_root_of_the_stores(name, images, tmp_path):
    path = images()
    (path / "dataset.yaml").write_text(json.dumps({"name": name}))
    root = tmp_path / "deep" / "er" / "stores"
    before = set(tmp_path.iterdir()) | {tmp_path / "deep"}
    made = extract(str(path), 8, "pixels", store=root, device="cpu")
    assert made.info.dataset == name_of(str(path)) == name
    assert made.path.resolve().is_relative_to(root)
    assert len(made.path.relative_to(root).parts) == 3
    assert set(tmp_path.iterdir()) == before
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "er"]


@pytest.mark.parametrize("name", [STEERING, "two\nlines", "a\x00b", "n" * 5000, "\u202eabc"])
@pytest.mark.parametrize("key", ["name", "classes"])
def test_names_that_no_terminal_or_disk_takes_are_refused(key, name, tmp_path):
    value = name if key == "name" else [name, "b"]
    (tmp_path / "dataset.yaml").write_text(json.dumps({key: value}))
    with pytest.raises(UsageError, match=r"printable|not valid YAML"):
        read_description(tmp_path)


def test_names_in_any_script_are_taken(tmp_path):
    names = ["Größe 1", "図像", "رئة", "🫁", "<script>", "100 % & $x_1$"]
    (tmp_path / "dataset.yaml").write_text(f"classes: {names!r}", encoding="utf-8")
    assert list(read_description(tmp_path).classes) == names


@pytest.mark.parametrize("outside", ["../outside.csv", "{tmp_path}/outside.csv", "link.csv"])
def test_table_outside_the_folder_is_not_read(outside, images, tmp_path):
    path = images()
    (tmp_path / "outside.csv").write_text("path,label,secret\n")
    (path / "link.csv").symlink_to(tmp_path / "outside.csv")
    (path / "dataset.yaml").write_text(f"table: {outside.format(tmp_path=tmp_path)}")
    with pytest.raises(UsageError, match="lies outside"):
        read_folder(path)


@pytest.mark.parametrize(
    "row", ["../outside.png", "{tmp_path}/outside.png", "train/../../outside.png"]
)
def test_image_that_a_table_names_outside_the_folder_is_not_read(row, images, tmp_path):
    path = images()
    shutil.copy(path / "train" / "class a" / "0.png", tmp_path / "outside.png")
    files = sorted(file.relative_to(path) for file in path.rglob("*.png"))
    rows = [f"{file},{file.parts[0]},{file.parts[1]}" for file in files]
    rows.append(f"{row.format(tmp_path=tmp_path)},train,class a")
    (path / "labels.csv").write_text("\n".join(["path,split,label", *rows]))
    with pytest.raises(UsageError, match="1 row of 13 without an image"):
        load_dataset(str(path), 8)


# --- the terminal -------------------------------------------------------------------------------


def test_printable_shows_what_it_takes_away():
    assert printable("a\x1b[31m\u202e\x00é\n🫁") == "a\\x1b[31m\\u202e\\x00é\n🫁"
    assert printable("a\nb\t", keep="") == "a\\nb\\t"


def test_console_lets_nothing_through():
    out = io.StringIO()
    console = new_console(file=out, width=200)
    console.print(f"plain {STEERING}")
    assert "\x1b" not in out.getvalue()
    assert "\\x1b]0;owned\\x07" in out.getvalue()


def test_folder_whose_name_steers_a_terminal(cli, images):
    path = images(name=STEERING.replace("/", ""))
    ran = [
        cli("extract", "--dataset", path, "--size", 8, "--backbone", "pixels"),
        cli("store", "ls"),
        cli("store", "verify", "embeddings"),
        cli("knn", "--dataset", path, "--size", 8, "--backbone", "pixels", "--k", 3, "-v"),
        cli("knn", "--dataset", path, "--size", 8, "--backbone", "pixels", "--k", 99),
        cli("extract", "--dataset", path, "--size", 0, "--backbone", "pixels"),
    ]
    assert [one.code for one in ran][1:2] == [0]
    for one in ran:
        for text in (one.out, one.err):
            assert not set("\x1b\x07\u202e") & set(text)
    assert any("owned" in one.out + one.err for one in ran)


def test_class_folders_whose_names_steer_a_terminal(cli, images):
    path = images(classes="ab")
    (path / "train" / f"class {STEERING}").mkdir()
    shutil.copy(path / "train" / "class a" / "0.png", path / "train" / f"class {STEERING}")
    ran = cli("extract", "--dataset", path, "--size", 8, "--backbone", "pixels", "-vv")
    assert not set("\x1b\x07\u202e") & set(ran.out + ran.err)


# --- reports on the records of others -----------------------------------------------------------


HOSTILE = "<img src=x onerror=alert(1)>\\input{/etc/passwd}$\\write18{x}$%_&\x1b]0;owned\x07"


def test_report_on_the_records_of_a_stranger(cli, tmp_path, monkeypatch):
    """But for the figures, which `tests/reporting/test_figures.py` tries with such names."""
    monkeypatch.setattr(build, "write_figures", lambda *_, **__: [])
    for seed in (1, 2):
        for acc, backbone in ((0.7, "resnet18"), (0.9, HOSTILE)):
            root = tmp_path / "runs"
            write_record(root, "probe", HOSTILE, backbone, seed=seed, acc=acc)
    ran = cli("report", "runs", "--out", "report")
    assert ran.code == 0, ran.err
    assert not set("\x1b\x07") & set(ran.out + ran.err)
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    for table in Path("report/tables").glob("*.tex"):
        text = table.read_text(encoding="utf-8")
        assert "\\input{" not in text
        assert "\\write18" not in text


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 10**30), ("seed", 2**63), ("seed", -1), ("size", 10**30)]
)
def test_record_of_a_number_that_no_column_takes_is_skipped_and_told(field, value, tmp_path):
    kept = write_record(tmp_path, seed=2**63 - 1)
    path = Path(write_record(tmp_path, seed=2).path) / "record.json"
    document = json.loads(path.read_text())
    document.pop("seal", None)
    path.write_text(json.dumps({**document, field: value}))
    runs = read_runs(tmp_path)
    assert list(runs.table["seed"]) == [kept.seed]
    [(_, reason)] = runs.skipped
    assert f"'{field}' is invalid" in reason
