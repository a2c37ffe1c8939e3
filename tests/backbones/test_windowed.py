"""Padded images through windows, against the whole network on the whole canvas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medplus.backbones.build import load_backbone
from medplus.backbones.inference import Embedder
from medplus.backbones.windowed import Windowed, windowed
from medplus.device import resolve_device
from medplus.embeddings.extract import extract_all
from medplus.spec import make_spec

CANVAS = 41


class Branches(nn.Module):
    """Convolutions and pools of every geometry, sums and concatenations of their maps."""

    def __init__(self, layers: list[tuple[nn.Module, nn.Module]], sums: list[bool]) -> None:
        super().__init__()
        self.ways = nn.ModuleList(nn.ModuleList(pair) for pair in layers)
        self.sums = sums

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for (way, by), is_sum in zip(self.ways, self.sums, strict=True):
            x = torch.relu(way(x) + by(x) if is_sum else torch.cat([way(x), by(x)], dim=1))
        return x.mean((2, 3))


@st.composite
def networks(draw) -> nn.Module:
    channels, layers, sums = 3, [], []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        dilation = draw(st.integers(1, 2))
        padding = draw(st.integers(0, kernel // 2))
        pool = draw(st.sampled_from(["conv", "max", "avg"]))
        is_sum = draw(st.booleans())
        out = channels if pool != "conv" else draw(st.integers(1, 4))
        first: nn.Module
        if pool == "conv":
            first = nn.Conv2d(channels, out, kernel, stride, padding, dilation)
        elif pool == "max":
            first = nn.MaxPool2d(kernel, stride, padding, dilation)
        else:
            dilation = 1
            first = nn.AvgPool2d(kernel, stride, padding)
        second = nn.Sequential(
            nn.Conv2d(channels, out, kernel, stride, padding, dilation),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )
        layers.append((first, second))
        sums.append(is_sum)
        channels = out if is_sum else 2 * out
    return Branches(layers, sums)


@settings(max_examples=40, deadline=None)
@given(networks(), st.integers(0, 30), st.integers(0, 30), st.integers(1, 11), st.integers(0, 9))
def test_any_network_of_convolutions_gives_the_same_through_windows(net, top, left, side, seed):
    torch.manual_seed(seed)
    net = net.eval()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
    window = ((top, top + side), (left, left + side))
    with torch.inference_mode():
        canvas = torch.zeros(1, 3, CANVAS, CANVAS)
        try:
            net(canvas)
        except RuntimeError:
            return  # the maps shrink to nothing
        ours = Windowed(torch.fx.symbolic_trace(net), window, canvas)
        for n in (2, 1, 4):
            images = torch.zeros(n, 3, CANVAS, CANVAS)
            images[:, :, top : top + side, left : left + side] = torch.randn(n, 3, side, side)
            torch.testing.assert_close(ours(images), net(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [28, 45])
@pytest.mark.parametrize("name", ["resnet18", "alexnet"])
def test_windows_leave_the_embeddings_of_a_backbone_as_they_are(name, size):
    _compare(name, size)


@pytest.mark.extensive
@pytest.mark.parametrize("size", [28, 64, 128, 223])
@pytest.mark.parametrize(
    "name",
    ["vgg16", "densenet121", "efficientnet_b4", "vit_base_patch16_224.dino", "samvit_base_patch16"],
)
def test_windows_leave_the_embeddings_of_the_papers_backbones_as_they_are(name, size):
    _compare(name, size)


def _compare(name: str, size: int) -> None:
    backbone = load_backbone(name, "none", size)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (3, size, size), dtype=np.uint8))
    device = resolve_device("cpu")
    ours, whole = (
        Embedder(backbone, device, "fp32", 2, window=window)(images) for window in (True, False)
    )
    assert (ours - whole).norm() <= 1e-6 * whole.norm()


@torch.inference_mode()
def test_windows_unrolled_for_a_compiler_give_the_same_for_any_images():
    module = load_backbone("test_resnet", "none", 28).module
    first, second = torch.zeros(2, 2, 3, 160, 160)
    first[:, :, 66:94, 66:94], second[:, :, 66:94, 66:94] = torch.randn(2, 2, 3, 28, 28)
    ours = windowed(module, first, ((66, 94), (66, 94)))
    assert isinstance(ours, Windowed)
    unrolled = ours.unrolled(first)
    for images in (first, second, first):
        torch.testing.assert_close(unrolled(images), module(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(second), module(second), rtol=1e-5, atol=1e-6)


def test_a_network_that_mixes_all_places_runs_as_it_is():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * CANVAS**2, 2)).eval()
    images = torch.zeros(1, 3, CANVAS, CANVAS)
    assert windowed(module, images, ((5, 9), (5, 9))) is module


def test_a_network_that_cannot_be_traced_runs_as_it_is():
    class Choosing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    module = Choosing().eval()
    assert windowed(module, torch.zeros(1, 3, CANVAS, CANVAS), ((5, 9), (5, 9))) is module


def test_a_store_begun_without_windows_is_the_same_when_it_is_finished_with_them(tmp_path, npz):
    """Its key does not change, and neither do its rows."""
    spec = make_spec(str(npz), None, "resnet18", weights="none", precision="fp32")
    kept = {}
    for window in (False, True):
        [done] = extract_all([spec], window=window, device="cpu", store=tmp_path / str(window))
        kept[window] = done.store
    assert kept[True].info.key == kept[False].info.key
    ours, whole = (np.asarray(one.embeddings("test")) for one in (kept[True], kept[False]))
    np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 5), ("val", 3), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).reshape(-1, 1)
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return path


def test_a_network_that_windows_cannot_run_runs_as_it_is():
    class OfOne(nn.Module):
        """Takes batches of one where it is traced, and of any size where it is not."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.n = 1

        def forward(self, x: torch.Tensor, scale: float | None = None) -> torch.Tensor:
            maps = self.conv(x)
            n = len(maps) if isinstance(maps, torch.Tensor) else self.n
            return maps.mean((2, 3)).reshape(n, 4)

    module = OfOne().eval()
    with torch.inference_mode():
        images = torch.zeros(2, 3, CANVAS, CANVAS)
        assert windowed(module, images, ((5, 9), (5, 9))) is module
        assert isinstance(windowed(module, images[:1], ((5, 9), (5, 9))), Windowed)
