"""A fine-tuned run as a backbone: what is stored of it, and how its stores are found again."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
import torch

from medplus.backbones.finetuned import NETWORK_FILE
from medplus.embeddings.extract import extract, extract_all
from medplus.embeddings.select import find_store
from medplus.embeddings.store import open_store
from medplus.errors import StoreError, UsageError
from medplus.spec import ExtractSpec, specs
from medplus.vocabulary import SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")

NETWORK = "mobilenetv3_small_050"
SMALL = "test_resnet"


@pytest.fixture(scope="module")
def npz(write_npz):
    return write_npz("toy", n=(12, 5, 4), size=28, classes=3)


@pytest.fixture(scope="module")
def run(write_run):
    """A fine-tuned run of the smallest network there is, at native size: it extracts at once."""
    return write_run(SMALL, size=28, fit="native")[0]


def embed(npz, run, root, **options):
    return extract(str(npz), backbone=str(run), precision="fp32", store=root, **options)


def spec_of(run, **choices):
    return ExtractSpec("toy", 28, str(run), **choices)


def message_of(root, *rest, kind=StoreError, **choices):
    with pytest.raises(kind) as caught:
        find_store(root, spec_of(*rest, **choices))
    return str(caught.value)


# --- what is stored ---------------------------------------------------------------------------


def test_embeddings_are_those_of_the_fine_tuned_network(npz, write_run, tmp_path):
    folder, network = write_run(NETWORK)
    store = embed(npz, folder, tmp_path)
    config = network.backbone.network.pretrained_cfg
    mean, std = (np.array(config[name]) for name in ("mean", "std"))
    with np.load(npz) as file:
        images = {split: file[f"{split}_images"] for split in SPLITS}
    for split in SPLITS:
        rgb = np.repeat(images[split][..., None], 3, 3) / 255
        x = np.zeros((len(rgb), 224, 224, 3))
        x[:, 98:126, 98:126] = (rgb - mean) / std
        with torch.no_grad():
            expected = network.backbone(torch.from_numpy(x).float().permute(0, 3, 1, 2)).numpy()
        assert expected.std() > 0
        error = np.abs(store.embeddings(split) - expected).max()
        assert error <= 1e-4 * np.abs(expected).max()


def test_store_tells_which_run_it_is_of(npz, run, tmp_path):
    store = embed(npz, run, tmp_path)
    name = f"{SMALL}@seed1-00000001"
    assert (store.info.backbone, store.info.run_id) == (name, "seed1-00000001")
    assert store.info.weights == str((run / NETWORK_FILE).resolve())
    assert store.info.tag.endswith("@seed1-00000001")
    folder = f"{SMALL}_seed1-00000001-{store.key[:8]}.zarr"
    assert store.path == tmp_path / "toy" / "28" / folder


def test_a_run_and_the_network_it_began_as_have_stores_of_their_own(npz, run, tmp_path):
    plain = extract(
        str(npz), backbone=SMALL, weights="none", fit="native", precision="fp32", store=tmp_path
    )
    tuned = embed(npz, run, tmp_path)
    assert plain.info.run_id is None
    assert not np.allclose(plain.embeddings("val"), tuned.embeddings("val"))
    assert find_store(tmp_path, spec_of(SMALL)).path == plain.path
    assert find_store(tmp_path, spec_of(plain.info.tag)).path == plain.path
    assert find_store(tmp_path, spec_of(run)).path == tuned.path


@pytest.mark.parametrize("weights", ["none", "w.pth"])
def test_a_run_with_other_weights_is_refused_before_any_work(weights, npz, run, tmp_path):
    with pytest.raises(UsageError, match="has its own weights; leave --weights out"):
        extract_all(
            specs([str(npz)], backbones=["pixels", str(run)], weights=weights), store=tmp_path
        )
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_refused_before_any_work(npz, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text('{"protocol": "probe"}')
    with pytest.raises(UsageError, match="is no fine-tuned run"):
        asked = specs([str(npz)], backbones=["pixels", str(tmp_path / "run")])
        extract_all(asked, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()


# --- how it is found --------------------------------------------------------------------------


def test_the_store_is_found_by_folder_file_name_and_tag(npz, run, tmp_path):
    store = embed(npz, run, tmp_path)
    tag = store.info.tag
    for spelling in (run, f"{run}/", run / NETWORK_FILE, store.info.backbone, tag):
        assert find_store(tmp_path, spec_of(spelling)).path == store.path


def test_a_run_that_has_trained_on_is_extracted_again(npz, write_run, tmp_path):
    folder, root = tmp_path / "r.partial", tmp_path / "stores"
    write_run(SMALL, fit="native", folder=folder)
    early = embed(npz, folder, root)
    write_run(SMALL, fit="native", folder=folder, seed=2, run_id=early.info.run_id)
    message = message_of(root, folder)
    assert "it has trained on" in message
    assert f"--backbone {folder}" in message
    late = embed(npz, folder, root)
    assert late.path != early.path
    assert late.info.backbone == early.info.backbone
    assert find_store(root, spec_of(folder)).path == late.path
    assert "2 stores match" in message_of(root, late.info.backbone)
    assert find_store(root, spec_of(late.info.backbone), key=early.key[:8]).path == early.path


def test_a_runs_own_weights_may_be_called_pretrained(npz, run, tmp_path):
    store = embed(npz, run, tmp_path)
    name = store.info.backbone
    for backbone, weights in [
        (run, "pretrained"), (name, "pretrained"),
    ]:  # fmt: skip
        assert find_store(tmp_path, spec_of(backbone, weights=weights)).path == store.path
    assert "has its own weights" in message_of(tmp_path, run, weights="none", kind=UsageError)
    assert "has these options" in message_of(tmp_path, name, weights="none")


def command_in(message):
    """Return the extract command that ends a message, as the arguments of `medplus`."""
    return shlex.split(message.partition("medplus ")[2])


def test_the_name_of_a_run_gives_a_command_with_its_path(npz, run, tmp_path, cli):
    asked = ExtractSpec(str(npz), 28, embed(npz, run, tmp_path).info.backbone, dtype="float16")
    with pytest.raises(StoreError) as caught:
        find_store(tmp_path, asked)
    assert cli(*command_in(str(caught.value))).code == 0
    assert find_store(tmp_path, asked).info.spec.dtype == "float16"


def test_a_damaged_store_of_a_run_is_repaired_by_the_command_that_is_named(npz, run, tmp_path, cli):
    store = embed(npz, run, tmp_path)
    expected = store.embeddings("val")
    [chunk] = (store.path / "val" / "embeddings").rglob("c/*/0")
    chunk.unlink()
    with pytest.raises(StoreError) as caught:
        open_store(store.path).embeddings("val")
    assert cli(*command_in(str(caught.value))).code == 0
    np.testing.assert_array_equal(open_store(store.path).embeddings("val"), expected)
