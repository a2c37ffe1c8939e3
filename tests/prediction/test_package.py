"""A packaged run gives its own scores, without medplus, or is not written."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import medplus
from medplus.errors import RunError, UsageError
from medplus.metrics.temperature import scale
from medplus.packaging import check, package
from medplus.prediction.model import load_model
from medplus.reading import Channels, Policy, Reading
from tests.prediction.conftest import SIZE, House

RUNS = ("knn", "weighted", "joined knn", "probe", "two", "labels", "joined", "folds", "finetune")
LOAD = """
import json, sys
import numpy as np
sys.path.insert(0, {folder!r})
from medplus_model import Model
model = Model({folder!r})
images = np.load({images!r})
found = {{"scores": model.predict(images).tolist(), "labels": model.labels(model.predict(images)),
          "calibrated": model.predict(images, calibrated=True).tolist(),
          "imported": [m for m in ("medplus", "torch", "PIL", "scipy") if m in sys.modules]}}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def packed(house: House, new_folder: Callable[[], Path]) -> dict[str, Path]:
    """Return the package of every run."""
    root = new_folder()
    for name in RUNS:
        package(house.runs[name].path, root / name, store=house.store)
    return {name: root / name for name in RUNS}


def loaded(folder: Path, images: np.ndarray, tmp_path: Path) -> dict[str, Any]:
    """Use a package in a process that has not imported medplus."""
    file = tmp_path / "images.npy"
    np.save(file, images)
    code = LOAD.format(folder=str(folder), images=str(file))
    ran = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_a_package_scores_new_images_as_its_run_does(
    name: str, packed: dict[str, Path], house: House, tmp_path: Path
) -> None:
    model = load_model(house.runs[name].path, store=house.store, precision="fp32")
    channels = () if model.reading.channels == "grey" else (3,)
    images = np.random.default_rng(5).integers(0, 256, (41, SIZE, SIZE, *channels), dtype=np.uint8)
    expected = model.score(model.embed(torch.from_numpy(images)))
    found = loaded(packed[name], images, tmp_path)
    np.testing.assert_allclose(found["scores"], expected, atol=1e-4)
    assert found["imported"] == []
    assert model.temperature is not None
    np.testing.assert_allclose(
        found["calibrated"], scale(np.array(found["scores"]), model.task, model.temperature),
        atol=1e-6,
    )  # fmt: skip
    assert check(packed[name]) <= 1e-4


def test_labels_are_those_that_predict_says(
    packed: dict[str, Path], house: House, tmp_path: Path, new_folder: Callable[[], Path]
) -> None:
    rng = np.random.default_rng(6)
    for name in ("probe", "two", "labels"):
        reading = house.runs[name].reading
        assert reading is not None
        folder = new_folder()
        for i in range(9):
            shape = (SIZE, SIZE) if reading.channels == "grey" else (SIZE, SIZE, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
        out = tmp_path / f"{name}.csv"
        medplus.predict(house.runs[name].path, [folder], out=out, store=house.store)
        expected = list(csv.DictReader(out.open()))
        files = sorted(map(str, folder.iterdir()))
        ran = subprocess.run(
            [sys.executable, "-B", "medplus_model.py", *files], cwd=packed[name],
            capture_output=True, text=True, check=True,
            env={**os.environ, "TMPDIR": str(spare := new_folder())},
        )  # fmt: skip
        assert not list(spare.iterdir())  # nor has it prepared to tell anyone of it
        found = list(csv.DictReader(io.StringIO(ran.stdout)))
        assert [row["predicted"] for row in found] == [row["predicted"] for row in expected]
        for row, other in zip(found, expected, strict=True):
            for column in row.keys() - {"name", "predicted"}:
                assert float(row[column]) == pytest.approx(float(other[column]), abs=1e-4)


READ = """
import sys
import numpy as np
sys.path.insert(0, {folder!r})
from medplus_model import Model
model = Model({folder!r})
found = []
for policy in ("squash", "crop", "pad"):
    for shape in ([7, 7], [7, 7, 3]):
        model.about |= {{"policy": policy, "shape": shape}}
        found.append(model.read({paths!r}).ravel())
np.save({out!r}, np.concatenate(found))
"""


def test_the_loader_reads_files_as_the_data_were_read(
    packed: dict[str, Path], tmp_path: Path
) -> None:
    from medplus.datasets.build import read_files

    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (13, 10, 4), dtype=np.uint8)
    paths = [tmp_path / f"{mode}.png" for mode in ("L", "RGB", "RGBA", "LA", "P")]
    for path in paths:
        Image.fromarray(pixels).convert(path.stem).save(path)
    out = tmp_path / "found.npy"
    code = READ.format(folder=str(packed["probe"]), paths=[*map(str, paths)], out=str(out))
    subprocess.run([sys.executable, "-B", "-c", code], check=True)
    policies: tuple[Policy, ...] = ("squash", "crop", "pad")
    channels: tuple[Channels, ...] = ("grey", "rgb")
    expected = [
        read_files(paths, Reading(size=7, policy=policy, channels=channel)).ravel()
        for policy in policies for channel in channels
    ]  # fmt: skip
    np.testing.assert_array_equal(np.load(out), np.concatenate(expected))


def test_the_programs_are_open_formats_with_any_number_of_images(
    packed: dict[str, Path], house: House
) -> None:
    import onnxruntime

    program = torch.export.load(packed["probe"] / "model.pt2").module()
    session = onnxruntime.InferenceSession(packed["probe"] / "model.onnx")
    [about] = session.get_inputs()
    assert (about.name, about.type) == ("images", "tensor(uint8)")
    for n in (1, 5, 33):
        images = np.zeros((n, *about.shape[1:]), np.uint8)
        embedding, scores = session.run(None, {"images": images})
        assert len(embedding) == len(scores) == n
        np.testing.assert_allclose(program(torch.from_numpy(images))[1].numpy(), scores, atol=1e-5)


def test_thresholds_call_images_as_predict_does(packed: dict[str, Path], house: House) -> None:
    from medplus.packaging.medplus_model import Model
    from medplus.prediction.decision import decide

    images = np.random.default_rng(8).integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8)
    for name in ("two", "labels", "probe"):
        model, loaded = load_model(house.runs[name].path, store=house.store), Model(packed[name])
        scores = loaded.predict(images[..., 0] if loaded.shape == (SIZE, SIZE) else images)
        for positive in model.classes:
            made = decide(model, positive, sensitivity=0.9)
            found = loaded.positive(scores, positive, "sensitivity ≥ 90 % on val")
            np.testing.assert_array_equal(found, made.calls(scores, model.task))


def test_the_card_has_what_a_reader_asks_for(packed: dict[str, Path], house: House) -> None:
    text = (packed["two"] / "README.md").read_text()
    assert not [n for n in packed if "No results" in (packed[n] / "README.md").read_text()]
    _, front, body = text.split("---\n", 2)
    meta = yaml.safe_load(front)
    assert meta["library_name"] == "onnx"
    [result] = meta["model-index"][0]["results"]
    assert {metric["type"] for metric in result["metrics"]} == {"accuracy", "roc_auc"}
    for heading in ("Intended use", "Data", "Results", "Limits", "How to make it again"):
        assert f"## {heading}" in body
    card = json.loads((packed["two"] / "croissant.json").read_text())
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    [classes] = card["recordSet"]
    assert [row["classes/name"] for row in classes["data"]] == house.runs["two"].classes
    accuracy = next(metric for metric in result["metrics"] if metric["type"] == "accuracy")
    assert accuracy["value"] == round(house.runs["two"].metrics["test"]["acc"], 4)


def test_a_changed_file_is_found(packed: dict[str, Path], tmp_path: Path) -> None:
    for name in ("model.onnx", "parity.npz", "README.md", "medplus_model.py"):
        folder = tmp_path / name
        folder.mkdir()
        for file in packed["probe"].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(RunError, match=name.replace(".", r"\.")):
            check(folder)


def test_an_archive_is_a_package_too(house: House, tmp_path: Path) -> None:
    audit = tmp_path / "suspects.csv"  # as a spreadsheet saves it
    audit.write_text("\ufeffname;split;index;kind;verdict\na;test;0;copy;\n", encoding="utf-8")
    made = package(house.runs["probe"].path, tmp_path / "model.zip", store=house.store, audit=audit)
    assert made.test is not None and made.test < 1e-4
    with zipfile.ZipFile(made.path) as archive:
        assert "model/model.onnx" in archive.namelist()
        assert "An audit found 1 suspect: 1 of copy." in archive.read("model/README.md").decode()
    assert check(made.path) <= 1e-4


def test_a_head_that_leaves_images_out_is_compared_on_those_it_was_scored_on(
    house: House, tmp_path: Path
) -> None:
    table, toy = tmp_path / "suspects.csv", house.runs["probe"].store
    table.write_text("name,split,index,kind,verdict\n,test,0,label,exclude\n")
    assert toy is not None
    [run] = medplus.probe(toy.path, 1, epochs=3, exclude=table, runs=tmp_path, device="cpu")
    made = package(run.path, tmp_path / "model", store=house.store, exclude=table)
    assert made.test is not None and made.test < 1e-4


def test_scores_that_are_not_the_runs_are_not_packaged(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def others(folder: Path) -> dict[str, np.ndarray]:
        from medplus.run.ledger import read_predictions

        found = read_predictions(folder)
        return {**found, "test_score": found["test_score"][:, ::-1]}

    monkeypatch.setattr("medplus.prediction.model.read_predictions", others)
    with pytest.raises(RunError, match="it is not packaged"):
        package(house.runs["probe"].path, tmp_path / "model", store=house.store)
    assert [*tmp_path.iterdir()] == []


def test_bad_input_is_told(house: House, tmp_path: Path, cli: Callable[..., Any]) -> None:
    run = house.runs["probe"].path
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        package(run, tmp_path / "there")
    (tmp_path / "no archive.zip").write_bytes(b"no archive")
    for other in ("there", "no archive.zip"):
        with pytest.raises(UsageError, match="no package of medplus"):
            check(tmp_path / other)
    assert cli("package", str(run)).code == 2
    assert cli("package", str(run), "--check", str(tmp_path)).code == 2
    audit = tmp_path / "other.csv"
    audit.write_text("a,b\n1,2\n")
    ran = cli("package", str(run), "--out", str(tmp_path / "new"), "--store", str(house.store),
              "--audit", str(audit))  # fmt: skip
    assert ran.code == 2 and "suspects.csv" in ran.err
