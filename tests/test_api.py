"""The public Python API: instant to import, and the whole way in three calls."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import medplus
from medplus.analysis.panel.examination import examine


def python(code):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_import_brings_nothing_heavy():
    heavy = "torch numpy timm zarr faiss sklearn pyarrow pydantic click rich"
    code = f"import medplus, sys; print({{*{heavy.split()}}} & set(sys.modules))"
    assert python(code) == "set()"


def test_estimators_bring_torch_only_when_they_are_used():
    heavy = "{'torch', 'timm', 'zarr', 'faiss'}"
    assert python(f"import medplus.sklearn, sys; print({heavy} & set(sys.modules))") == "set()"


def test_every_public_name_resolves_and_is_listed():
    assert set(medplus.__all__) == set(dir(medplus))
    for name in medplus.__all__:
        assert getattr(medplus, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'medplus' has no attribute 'exttract'"):
        _ = medplus.exttract


@pytest.mark.parametrize(
    "name", ["extract", "knn", "probe", "finetune", "evaluate", "open_store", "load_dataset"]
)
def test_functions_stay_functions_whatever_was_imported_before(name):
    import medplus.cli.evaluate
    import medplus.cli.extract
    import medplus.cli.finetune
    import medplus.cli.knn
    import medplus.cli.probe
    import medplus.embeddings.extract
    import medplus.evaluation
    import medplus.heads.knn
    import medplus.heads.probe
    import medplus.training

    assert callable(getattr(medplus, name))
    assert not hasattr(getattr(medplus, name), "__path__")


def test_from_import_gives_the_same_functions():
    from medplus import knn, probe
    from medplus.heads.knn.classify import knn as knn_itself
    from medplus.heads.probe.fit import probe as probe_itself

    assert knn is knn_itself
    assert probe is probe_itself


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert medplus.__version__ == version("medplus")


def learnable_npz(write_npz, folder):
    """Two classes of noisy 8-px images: brighter on the left, or on the right."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 120), ("val", 40), ("test", 60)):
        labels = rng.integers(0, 2, (n, 1), dtype=np.uint8)
        side = np.where(np.arange(8) < 4, 1, -1) * np.where(labels == 1, 1, -1)
        images = rng.normal(128 + 12 * side[:, None], 40, (n, 8, 8)).clip(0, 255)
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    return write_npz("toy", n=(120, 40, 60), folder=folder, **arrays)


def test_extract_knn_probe_from_images_to_scores(write_npz, tmp_path):
    npz = learnable_npz(write_npz, tmp_path)
    store = medplus.extract(str(npz), backbone="pixels", store=tmp_path / "embeddings")
    records = medplus.knn(store, k=[1, 5], runs=tmp_path / "runs")
    records += medplus.probe(store, seeds=[1, 2], lr=0.01, epochs=20, runs=tmp_path / "runs")
    assert [(r.protocol, r.k, r.seed) for r in records] == [
        ("knn", 1, None), ("knn", 5, None), ("probe", None, 1), ("probe", None, 2),
    ]  # fmt: skip
    for record in records:
        assert record.metrics["test"]["auc"] > 0.7
        assert (record.dataset, record.size, record.backbone) == ("toy", 8, "pixels")


def test_one_number_or_word_stands_for_several(write_npz, tmp_path):
    npz = learnable_npz(write_npz, tmp_path)
    store = medplus.extract(str(npz), backbone="pixels", store=tmp_path / "embeddings")
    [run] = medplus.knn(store, k=3, runs=tmp_path / "runs")
    [scored] = medplus.robust(run.path, "brightness_up", 1)
    assert [point.severity for point in scored.found.points] == [1]
    [series] = medplus.curve(store, 5, episodes=2, protocols="knn", runs=None).series
    assert series.n.tolist() == [10]
    found = medplus.explore(store, kind="pca", runs=run.path, out=tmp_path / "map")
    assert len(found.collection.runs) == 1
    table = tmp_path / "table.csv"
    table.write_text("index,site\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(60)))
    [groups] = examine(run.path, by="site", table=table).subgroups
    assert groups.by == "site"


def test_stores_are_opened_and_found_again(write_npz, tmp_path):
    npz = learnable_npz(write_npz, tmp_path)
    store = medplus.extract(str(npz), backbone="pixels", store=tmp_path / "embeddings")
    spec = medplus.ExtractSpec(str(npz), 8, "pixels")
    found = medplus.find_store(tmp_path / "embeddings", spec)
    assert medplus.open_store(store.path).key == found.key == store.key


def test_every_error_on_purpose_is_a_medplus_error(tmp_path):
    with pytest.raises(medplus.MedplusError, match="nothing"):
        medplus.extract(str(tmp_path / "nothing.npz"), backbone="pixels", store=tmp_path)
