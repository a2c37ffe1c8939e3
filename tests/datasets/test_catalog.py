"""The catalogue of datasets says what MedMNIST says."""

from __future__ import annotations

import json
import subprocess
import sys

import medmnist
import pytest

from medplus.datasets import catalog
from medplus.errors import UsageError


def test_flags_are_medmnists_two_dimensional_collections():
    two_dimensional = {flag for flag in medmnist.INFO if not flag.endswith("3d")}
    assert set(catalog.FLAGS) == two_dimensional
    assert len(catalog.FLAGS) == 12


@pytest.mark.parametrize("flag", catalog.FLAGS)
def test_info_equals_medmnists(flag):
    official = medmnist.INFO[flag]
    info = catalog.info(flag)
    assert info.flag == flag
    assert info.task == official["task"]
    assert info.channels == official["n_channels"]
    assert info.licence == official["license"]
    assert info.n_samples == official["n_samples"]
    assert {str(i): name for i, name in enumerate(info.classes)} == official["label"]


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("brestmnist", "breastmnist"),
        ("BloodMNIST", "bloodmnist"),
        ("organ-a-mnist", "organamnist"),
        ("retina_mnist", "retinamnist"),
    ],
)
def test_unknown_flag_suggests_the_nearest(typo, meant):
    with pytest.raises(UsageError, match=f"'{typo}'.*did you mean '{meant}'"):
        catalog.info(typo)


def test_import_loads_neither_torch_nor_pandas():
    code = (
        "import sys, json, medplus.datasets.catalog as c; c.info('breastmnist'); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "medplus.datasets.catalog" in loaded
    assert not loaded & {"torch", "torchvision", "pandas", "timm", "zarr", "sklearn", "medmnist"}
