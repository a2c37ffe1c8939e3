"""Backbones from Python files: named without running them, run only when named, told in the key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medplus.backbones.build import load_backbone
from medplus.backbones.sources import describe, python, resolve
from medplus.embeddings.extract import extract
from medplus.embeddings.select import find_store
from medplus.errors import BackboneError, MedplusError, StoreError, UsageError
from medplus.preprocess import preprocess
from medplus.spec import ExtractSpec

SOURCE = """
from dataclasses import dataclass
from torch import nn

print("running")

@dataclass
class Settings:
    dim: int = 5

def grey():
    return net(1, 4), [0.5], [0.25], 16

def net(channels, dim):
    return nn.Sequential(nn.Conv2d(channels, dim, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def backbone():
    return net(3, Settings().dim), (0.5, 0.4, 0.3), (0.25, 0.2, 0.1), 40
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(source: str = SOURCE, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write


def test_the_name_has_the_files_digest(write: Write) -> None:
    file = write()
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()[:16]

    for spelling, name in [("", "mine.py"), (":backbone", "mine.py"), (":grey", "mine.py:grey")]:
        ref = resolve(f"{file}{spelling}")
        assert (ref.name, ref.tag) == (name, f"{name}@{digest}")


def test_names_are_found_without_running_the_file(write: Write, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = f"open({str(trace)!r}, 'w')\ndef backbone(): ...\n"
    file = write(source)

    resolve(file)
    with pytest.raises(StoreError, match=r"medplus extract .*mine\.py"):
        find_store(tmp_path, ExtractSpec("toy.npz", None, file))
    assert not trace.exists()
    with pytest.raises(BackboneError):
        load_backbone(file)
    assert trace.exists()


def test_the_network_and_its_input_are_the_functions(write: Write) -> None:
    backbone = load_backbone(write(), size=28)

    assert (backbone.name, backbone.weights, backbone.feature) == (
        "mine.py", "pretrained", "prelogits",
    )  # fmt: skip
    assert backbone.preprocess.canvas == 40
    assert backbone.preprocess.mean == (0.5, 0.4, 0.3)
    images = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    x = (images.permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / (
        torch.tensor([0.25, 0.2, 0.1]).view(3, 1, 1)
    )
    conv = backbone.module[0]
    by_hand = nn.functional.conv2d(nn.functional.pad(x, (6, 6, 6, 6)), conv.weight, conv.bias).mean(
        (2, 3)
    )

    found = backbone.module(preprocess(images, backbone.preprocess))
    torch.testing.assert_close(found, by_hand)
    assert not backbone.module.training
    assert not any(p.requires_grad for p in backbone.module.parameters())


def test_what_it_draws_at_random_is_always_the_same(write: Write) -> None:
    file = write()
    torch.manual_seed(1)
    first = load_backbone(file).weights_sha256
    torch.manual_seed(2)
    state = torch.random.get_rng_state()

    assert load_backbone(file).weights_sha256 == first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_of_grey_images_gets_them_grey(write: Write) -> None:
    backbone = load_backbone(f"{write()}:grey", size=16)
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colour).convert("L"), dtype=np.float32)

    found = preprocess(torch.from_numpy(colour)[None], backbone.preprocess)
    assert found.shape == (1, 1, 16, 16)
    np.testing.assert_allclose(found[0, 0], (grey / 255 - 0.5) / 0.25, atol=1.01 / 255 / 0.25)
    plain = preprocess(torch.from_numpy(colour[None, :, :, 0]), backbone.preprocess)
    np.testing.assert_allclose(plain[0, 0], (colour[:, :, 0] / 255 - 0.5) / 0.25, atol=1e-6)


def test_description_tells_what_the_function_makes(write: Write) -> None:
    info = describe(f"{write()}:grey")

    assert (info.dim, info.n_parameters, info.native_size) == (4, 4 * 9 + 4, 16)
    assert (info.mean, info.std) == ((0.5,), (0.25,))


def test_an_edited_file_is_another_backbone(
    write: Write, tmp_path: Path, write_npz: Callable[..., Path]
) -> None:
    file, toy, root = write(), str(write_npz("toy", channels=3)), tmp_path / "stores"
    first = extract(toy, backbone=file, store=root)
    assert extract(toy, backbone=file, store=root).path == first.path
    assert find_store(root, ExtractSpec(toy, None, file)).path == first.path

    write(SOURCE + "# a comment\n")
    with pytest.raises(StoreError, match="no store"):
        find_store(root, ExtractSpec(toy, None, file))
    second = extract(toy, backbone=file, store=root)
    assert second.path != first.path
    with pytest.raises(StoreError, match="2 stores match"):
        find_store(root, ExtractSpec(toy, None, "mine.py"))


def test_features_are_those_of_modules_inside(write: Write) -> None:
    file = write()
    backbone = load_backbone(file, feature="layer:0")
    x = torch.rand(2, 3, 40, 40)

    expected = load_backbone(file).module(x)  # the network pools its convolution itself
    torch.testing.assert_close(backbone.module(x), expected)
    for feature in ("cls", "avg"):
        with pytest.raises(UsageError, match=r"mine\.py.*layer:NAME"):
            load_backbone(file, feature=feature)


def test_weights_may_come_from_a_file(write: Write, tmp_path: Path) -> None:
    file = write()
    state = {key: value + 1 for key, value in load_backbone(file).module.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")

    loaded = load_backbone(file, str(tmp_path / "weights.pth"))
    assert torch.equal(loaded.module.state_dict()["0.weight"], state["0.weight"])
    torch.save({"other": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match=r"weights\.pth do not fit mine\.py"):
        load_backbone(file, str(tmp_path / "weights.pth"))
    with pytest.raises(UsageError, match="--weights none cannot go with"):
        load_backbone(file, "none")


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        ("x = 1", "", "defines no function"),
        ("def a(): ...\ndef b(): ...", "", r"several functions \(a, b\); say which.*mine\.py:a"),
        ("def _a(): ...", "", "defines no function"),
        ("def first(): ...", ":frist", "no function 'frist'; did you mean 'first'"),
        ("def a(:", "", "line 1 is no valid Python"),
        ("\0", "", "no valid Python"),
        ("\n\nimport no_such_package\ndef f(): ...", "", "line 3 fails: .*has to stand alone"),
        ("def f():\n  return 1 / 0", "", "line 2 fails: ZeroDivisionError"),
        ("import sys\ndef f():\n  sys.exit(3)", "", "line 3 fails: SystemExit"),
        ("def f(needed): ...", "", "fails: TypeError"),
        ("def f(): ...", "", "but it returns None"),
        ("def f(): return 1, 2", "", "but it returns a tuple of 2"),
        ("def f(): return 1, (0,), (1,), 8", "", "the module is a int"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(write: Write, source: str, name: str, says: str) -> None:
    file = write(source)
    with pytest.raises(MedplusError, match=says) as caught:
        load_backbone(file + name)
    assert "mine.py" in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "std", "size", "says"),
    [
        ("(0.5,)", "(0.5, 0.5)", "8", "mean and std"),
        ("(0.5, 0.5)", "(0.5, 0.5)", "8", "mean and std"),
        ("0.5", "0.5", "8", "mean and std"),
        ("(float('nan'),)", "(1,)", "8", "mean and std"),
        ("(0,)", "(0,)", "8", "a std is 0"),
        ("(0,)", "(1,)", "0", "input size is 0"),
        ("(0,)", "(1,)", "(8, 8)", r"input size is \(8, 8\)"),
        ("(0,)", "(1,)", "True", "input size is True"),
    ],
)
def test_what_is_wrong_with_the_input_is_said(
    write: Write, mean: str, std: str, size: str, says: str
) -> None:
    file = write(f"from torch import nn\ndef f(): return nn.Identity(), {mean}, {std}, {size}\n")
    with pytest.raises(BackboneError, match=says):
        load_backbone(file)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.py cannot be read"):
        resolve(str(tmp_path / "no.py"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.py", True), ("b/a.py:f", True), ("a.py:not-one", False), ("resnet18", False),
        ("vit_base_patch16_224.dino", False), ("a.pyc", False),
    ],
)  # fmt: skip
def test_which_names_are_python_files(name: str, expected: bool) -> None:
    assert python.claims(name) is expected
