"""npz files that inflate, lie or lead elsewhere: datasets and predictions."""

from __future__ import annotations

import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from medplus.datasets import npzfile
from medplus.datasets.cache import ARRAYS
from medplus.datasets.sources import load_dataset
from medplus.errors import DatasetError, RunError
from medplus.run.ledger import read_predictions
from medplus.vocabulary import SPLITS
from tests.hostile.limits import outcome
from tests.hostile.makers import Trap, arrays, npy, npy_of, vouch, write_npz

MANY = 10**12
MUCH = 1 << 27  # twice what a child may take


def test_small_dataset_is_read_within_the_limits(tmp_path):
    """What the others are refused for is not the limits themselves."""
    path = write_npz(tmp_path / "toy.npz")
    assert outcome(lambda: load_dataset(str(path))) == "done"


@pytest.mark.parametrize("shape", [(MANY,), (MANY, 8, 8), (MANY, 0, 0), (10**30, 1)])
@pytest.mark.parametrize("name", ["train_images", "train_labels"])
def test_array_that_declares_a_trillion_elements(shape, name, tmp_path):
    path = write_npz(tmp_path / "toy.npz", {f"{name}.npy": npy_of("|u1", shape, b"x")})
    assert outcome(lambda: load_dataset(str(path))).startswith("refused: ")


def test_member_that_inflates_to_more_than_it_declares(tmp_path):
    honest = npy(arrays()["train_images"])
    bomb = honest + bytes(MUCH)
    path = write_npz(
        tmp_path / "toy.npz", {"train_images.npy": bomb}, compression=zipfile.ZIP_DEFLATED
    )
    sizes = [len(content).to_bytes(4, "little") for content in (bomb, honest)]
    path.write_bytes(path.read_bytes().replace(*sizes))
    assert outcome(lambda: load_dataset(str(path))).startswith("refused: ")


def test_dataset_that_is_larger_than_the_disk_is_refused_before_it_fills_it(tmp_path, monkeypatch):
    path = write_npz(tmp_path / "toy.npz")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    monkeypatch.setattr(npzfile, "read_blocks", lambda *_: pytest.fail("it is inflated"))
    with pytest.raises(DatasetError, match="No space left on device; it needs"):
        load_dataset(str(path))


def test_note_that_inflates_to_too_much_is_no_note(tmp_path):
    """The seventh member that a dataset may have is read into memory: a phantom's note."""
    note = npy_of(f"<U{MUCH // 4}", (), bytes(MUCH))
    path = write_npz(
        tmp_path / "toy.npz", more=[("phantom.npy", note)], compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 1 << 20
    assert outcome(lambda: load_dataset(str(path))) == "done"
    assert load_dataset(str(path)).source == "custom"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entry_that_stands_twice_is_refused(tmp_path):
    other = npy(1 - arrays()["train_labels"])
    path = write_npz(tmp_path / "toy.npz", more=[("train_labels.npy", other)])
    with pytest.raises(DatasetError, match="holds train_labels twice"):
        load_dataset(str(path))


def test_names_that_lead_elsewhere_write_nothing(tmp_path):
    inner = write_npz(tmp_path / "inner.npz").read_bytes()
    folder = tmp_path / "data" / "deep"
    folder.mkdir(parents=True)
    absolute = tmp_path / "absolute.npy"
    path = write_npz(
        folder / "toy.npz",
        more=[("../../up.npy", b"x"), (str(absolute), b"x"), ("nested.npz", inner)],
    )
    before = {p.name for p in tmp_path.iterdir()}
    loaded = load_dataset(str(path))
    assert {p.name for p in tmp_path.iterdir()} == before
    assert not absolute.exists()
    written = {p.name for p in (folder / ".medplus-cache" / "toy").iterdir()}
    assert written == {"meta.json", *(f"{name}.npy" for name in ARRAYS)}
    assert np.array_equal(loaded.splits["train"].images, arrays()["train_images"])


@pytest.mark.parametrize(
    "values", [[0, -1, 1, 0], [0, 1, 2**63 - 1, 0], [0, 1, 2**64 - 1, 0]], ids=str
)
def test_labels_out_of_range(values, tmp_path):
    dtype = np.uint64 if max(values) >= 2**63 else np.int64
    labels = npy(np.array(values, dtype)[:, None])
    path = write_npz(tmp_path / "toy.npz", {"train_labels.npy": labels})
    with pytest.raises(DatasetError, match="no class indices from 0 on"):
        load_dataset(str(path))


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_float_pixels_are_refused_whatever_they_are(value, tmp_path):
    images = {f"{s}_images.npy": npy(np.full((4, 8, 8), value, np.float32)) for s in SPLITS}
    path = write_npz(tmp_path / "toy.npz", images)
    with pytest.raises(DatasetError, match="must be uint8"):
        load_dataset(str(path))


# --- predictions --------------------------------------------------------------------------------


def test_predictions_that_numpy_writes_are_read(tmp_path):
    np.savez(tmp_path / "predictions.npz", test_score=np.ones((3, 2), np.float32))
    vouch(tmp_path)
    assert outcome(lambda: read_predictions(tmp_path)) == "done"
    assert read_predictions(tmp_path)["test_score"].shape == (3, 2)


@pytest.mark.parametrize("name", ["test_score.npy", "test_score.bin"])
def test_predictions_that_inflate_to_too_much_are_refused(name, tmp_path):
    data = npy_of("|u1", (MUCH,), bytes(MUCH))
    with zipfile.ZipFile(tmp_path / "predictions.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    vouch(tmp_path)
    assert outcome(lambda: read_predictions(tmp_path)).startswith("refused: ")


def test_predictions_that_declare_a_trillion_elements_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "predictions.npz", "w") as archive:
        archive.writestr("test_score.npy", npy_of("<f4", (MANY, 2), b"xx"))
    vouch(tmp_path)
    assert outcome(lambda: read_predictions(tmp_path)).startswith("refused: ")


@pytest.mark.parametrize("bare", [True, False], ids=["bare pickle", "object array"])
def test_pickle_in_place_of_predictions_is_refused_and_never_run(bare, tmp_path):
    path, sprung = tmp_path / "predictions.npz", tmp_path / "sprung"
    if bare:
        path.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        np.savez(path, test_score=np.array([Trap(sprung)], object))
    vouch(tmp_path)
    with pytest.raises(RunError, match=r"predictions\.npz is missing or damaged"):
        read_predictions(tmp_path)
    assert not sprung.exists()
    if bare:
        pickle.loads(path.read_bytes())  # noqa: S301 - our own
        assert sprung.exists()  # the trap does work where it is unpickled
