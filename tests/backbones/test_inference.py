"""Images in, embeddings out: as fast as may be, without changing what is computed."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms
from torchvision.models import alexnet

from medplus.backbones.build import Backbone, load_backbone
from medplus.backbones.catalog import PAPER
from medplus.backbones.inference import Embedder
from medplus.backbones.prepared import fold_batch_norms, rounded
from medplus.backbones.sources import BackboneRef
from medplus.backbones.weights import state_sha256
from medplus.errors import BackboneError
from medplus.preprocess import PreprocessSpec, preprocess

CPU = torch.device("cpu")
FOUR = {"alexnet", "resnet18", "efficientnet_b4", "eva02_base_patch16_clip_224"}
"""One of each kind; `make test-all` takes all ten."""

DIMS = dict(zip(PAPER, (4096, 4096, 512, 1024, 1792, 768, 768, 768, 768, 256), strict=True))
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def draw(n: int, size: int = 28, rgb: bool = True, seed: int = 0) -> torch.Tensor:
    shape = (n, size, size, 3) if rgb else (n, size, size)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def scatter(network: nn.Module) -> None:
    """Move every weight away from its initial value, which is often 0 or 1.

    Batch norms get the statistics of some images, as if trained, so that the signal survives.
    """
    generator = torch.Generator().manual_seed(13)
    for value in network.parameters():
        value.data.add_(torch.randn(value.shape, generator=generator), alpha=0.02)
    norms = norms_of(network)
    if not norms:
        return
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        noise = torch.randn(4, 3, 64, 64, generator=generator)
        network(
            nn.functional.pad(noise * torch.tensor([2, 1, 0.5, 0.1]).view(4, 1, 1, 1), [80] * 4)
        )
    for norm in norms:
        norm.eval()


# --- exactness --------------------------------------------------------------------------------


def independent_embeddings(network: nn.Module, tag: str, images: torch.Tensor) -> torch.Tensor:
    """Embed with torchvision's transforms and plain calls of the network, image by image."""
    config = getattr(network, "pretrained_cfg", None) or {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    chain = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
            transforms.Pad((224 - images.shape[1]) // 2),
        ]
    )
    network.eval()
    rows = []
    for image in images.numpy():
        x = chain(Image.fromarray(image).convert("RGB"))[None]
        with torch.no_grad():
            if tag.startswith("alexnet"):
                network.classifier[6] = nn.Identity()
                rows.append(network(x))
            else:
                rows.append(network.forward_head(network.forward_features(x), pre_logits=True))
    return torch.cat(rows)


def paper_backbone(name: str, folder: Path) -> tuple[Backbone, nn.Module]:
    """Return a backbone with scattered weights, and an independent network with the same."""
    if name == "alexnet":
        backbone = load_backbone(name, "none")
        scatter(backbone.module)
        network = alexnet()
        missing, unexpected = network.load_state_dict(backbone.module.state_dict(), strict=False)
        assert (missing, unexpected) == (["classifier.6.weight", "classifier.6.bias"], [])
        return backbone, network
    network = timm.create_model(PAPER[name], num_classes=0)
    if name == "samvit_base_patch16":
        # Its tables are resized when it is loaded, so the weights have to come from a file.
        scatter(network)
        save_file(network.state_dict(), folder / "sam.safetensors")
        return load_backbone(name, str(folder / "sam.safetensors")), network
    backbone = load_backbone(name, "none")
    scatter(backbone.module)
    network.load_state_dict(backbone.module.network.state_dict(), strict=True)
    return backbone, network


@pytest.mark.parametrize(
    "name", [n if n in FOUR else pytest.param(n, marks=pytest.mark.extensive) for n in PAPER]
)
def test_fp32_embeddings_equal_the_torchvision_chain(name, tmp_path):
    backbone, network = paper_backbone(name, tmp_path)
    images = draw(2, 64, rgb=name != "resnet18")
    images[1] //= 4  # a dark image and a bright one
    expected = independent_embeddings(network, PAPER[name], images)
    found = Embedder(backbone, CPU, "fp32", batch_limit=2)(images)
    assert found.shape == expected.shape == (2, DIMS[name])
    assert found.dtype == torch.float32
    assert (expected[0] - expected[1]).norm() > 1e-2 * expected.norm()  # not blind to the images
    assert (found - expected).norm() <= 1e-4 * expected.norm()
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "pixels"])
def test_rows_are_in_the_order_of_the_images(name):
    embedder = Embedder(load_backbone(name, "none"), CPU, "fp32", 3)
    images = draw(8)
    together = embedder(images)
    for row, image in zip(together, images, strict=True):
        torch.testing.assert_close(row, embedder(image[None])[0], rtol=1e-4, atol=1e-5)


def test_grey_and_rgb_and_other_sizes_may_follow_each_other():
    embedder = Embedder(load_backbone("test_resnet", "none"), CPU, "fp32", 8)
    for size, rgb in ((64, True), (28, True), (28, False), (224, True), (28, True)):
        fresh = Embedder(load_backbone("test_resnet", "none"), CPU, "fp32", 8)
        images = draw(2, size, rgb)
        assert torch.equal(embedder(images), fresh(images))


# --- batch norms ------------------------------------------------------------------------------


FOLDED = ("resnet10t", "test_efficientnet", "mobilenetv3_small_050", "tf_mobilenetv3_small_075")
ALSO_FOLDED = (
    "resnet18", "vgg11_bn", "densenet121", "seresnext26d_32x4d", "regnety_002", "repvgg_a0",
    "efficientnet_lite0", "ghostnet_050", "mobilenetv4_conv_small", "ese_vovnet19b_slim_dw",
    "inception_v3", "mobilevit_xxs", "levit_128s", "efficientvit_b0", "fastvit_t8",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [*FOLDED, *(pytest.param(n, marks=pytest.mark.extensive) for n in ALSO_FOLDED)]
)
def test_batch_norms_are_folded_with_the_same_output(name):
    chance = torch.Generator().manual_seed(5)
    network = load_backbone(name, "none").module
    for norm in norms_of(network):
        norm.running_mean.normal_(0, 0.3, generator=chance)
        norm.running_var.uniform_(0.3, 3, generator=chance)
        norm.weight.data.uniform_(0.5, 1.5, generator=chance)
        norm.bias.data.normal_(0, 0.3, generator=chance)
    folded = fold_batch_norms(network)
    assert len(norms_of(folded)) < len(norms_of(network)) * (1 if name in ALSO_FOLDED else 0.2)
    assert not any(layer.training for layer in folded.modules())
    x = torch.randn(2, 3, 224, 224, generator=chance)
    with torch.inference_mode():
        expected, found = network(x), folded(x)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


class _Branching(nn.Module):
    """A network that cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class _FixedSize(_Branching):
    """A network that takes 28 px only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).reshape(-1, 4 * 26 * 26)


class _TwiceUsed(_Branching):
    """A network whose folding by the rule would change its output: the convolution is shared."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.norm(self.conv(x)) + self.conv(x)).mean((2, 3))


@pytest.mark.parametrize("kind", [_Branching, _FixedSize, _TwiceUsed])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_network_that_cannot_be_folded_is_embedded_all_the_same(kind, precision):
    torch.manual_seed(0)
    module = kind().eval().requires_grad_(False)
    module.norm.running_mean.uniform_(-1, 1)
    module.norm.running_var.uniform_(0.2, 2)
    backbone = fake_backbone(module)
    images = draw(2)
    assert fold_batch_norms(module) is module
    expected = module(images.permute(0, 3, 1, 2) / 255)
    found = Embedder(backbone, CPU, precision, 8)(images)
    assert (found - expected).norm() <= (1e-5 if precision == "fp32" else 2e-2) * expected.norm()


# --- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_efficientnet", "test_convnext"])
def test_bf16_on_a_cpu_is_close_to_fp32(name):
    images = draw(4, 64)
    exact = Embedder(load_backbone(name, "none"), CPU, "fp32", 8)(images)
    found = Embedder(load_backbone(name, "none"), CPU, "bf16", 8)(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert (torch.cosine_similarity(found, exact) > 0.99).all()


@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_backbone_may_be_used_at_one_precision_after_another(name):
    images = draw(2)
    backbone = load_backbone(name, "none")
    before = state_sha256(backbone.module.state_dict())
    exact = Embedder(backbone, CPU, "fp32", 8)(images)
    Embedder(backbone, CPU, "bf16", 8)(images)
    assert state_sha256(backbone.module.state_dict()) == before
    assert torch.equal(Embedder(backbone, CPU, "fp32", 8)(images), exact)


def test_bf16_equals_plain_autocast():
    # Casting weights beforehand saves work in every forward; it must not change a bit.
    backbone = load_backbone("test_vit", "none")
    images = draw(2, 224)
    mean, std = backbone.preprocess.mean, backbone.preprocess.std
    chain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    x = torch.stack([chain(image) for image in images.numpy()])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = backbone.module(x.to(torch.bfloat16)).float()
    found = Embedder(backbone, CPU, "bf16", 8)(images)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    assert (torch.cosine_similarity(found, expected) > 0.9999).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("side", [3, 5])
def test_rounded_kernels_keep_their_sums(dtype, side):
    chance = torch.Generator().manual_seed(side)
    kernels = torch.randn(500, 1, side, side, generator=chance)
    kernels[:250] -= kernels[:250].mean((2, 3), keepdim=True)  # these see edges alone
    found = rounded(kernels, dtype)
    assert torch.equal(found, found.to(dtype).float())
    nearest = kernels.to(dtype).float()

    def off(weights):
        return (weights.double() - kernels.double()).sum((1, 2, 3)).abs()

    least = kernels.abs().amin((1, 2, 3))
    assert (off(found) <= torch.finfo(dtype).eps * least + off(nearest) / 100).all()
    assert off(found).mean() < off(nearest).mean() / 5
    largest = kernels.abs().amax((1, 2, 3), keepdim=True)
    assert ((found - kernels).abs() <= torch.finfo(dtype).eps * largest).all()


# --- compiling --------------------------------------------------------------------------------


def compiled_by(monkeypatch, compiler):
    """Let the test's own function stand for torch's compiler, which takes a minute."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: compiler(module))


def test_only_whole_batches_run_through_what_was_compiled(monkeypatch):
    batches = []

    def compiler(module):
        return lambda x: (batches.append(len(x)), module(x))[1]

    compiled_by(monkeypatch, compiler)
    embedder = Embedder(load_backbone("test_resnet", "none"), CPU, "fp32", 4)
    images = draw(11)
    expected = embedder(images)
    assert embedder.compile(images[:4])
    batches.clear()
    assert torch.equal(embedder(images), expected)
    assert batches == [4, 4]
    embedder.is_compiled = False
    assert torch.equal(embedder(images), expected)
    assert batches == [4, 4]


def fails(module):
    raise RuntimeError("No working C++ compiler found in c++\nand a long trace")


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        (fails, "runs without being compiled: No working C++ compiler found in c++"),
        (lambda module: lambda x: module(x) * 1.5, "compiling would move embeddings by 0.5"),
        (lambda module: lambda x: module(x) * float("nan"), "would move embeddings by nan"),
    ],
)
def test_without_a_compiler_that_works_embedding_goes_on(compiler, said, monkeypatch, caplog):
    compiled_by(monkeypatch, compiler)
    embedder = Embedder(load_backbone("test_resnet", "none"), CPU, "fp32", 4)
    images = draw(4)
    expected = embedder(images)
    assert not embedder.compile(images)
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said in line
    assert "trace" not in line
    assert torch.equal(embedder(images), expected)


@pytest.mark.extensive  # it needs a C++ compiler, and a minute
@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_compiled_by_inductor_embeds_the_same(window, precision):
    backbone = load_backbone("test_resnet", "none", 28)
    embedder = Embedder(backbone, CPU, precision, 4, window=window)
    images = draw(10)
    expected = embedder(images)
    assert embedder.compile(images[:4])
    difference = (embedder(images) - expected).norm() / expected.norm()
    assert difference <= (1e-5 if precision == "fp32" else 2e-2)


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_left_as_it_is_gives_the_bits_of_a_plain_forward(precision):
    backbone = load_backbone("resnet18", "none")
    images = draw(2)
    embedder = Embedder(backbone, CPU, precision, 2, lambda module, precision: module)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        pixels = preprocess(images, backbone.preprocess).contiguous()
        expected = backbone.module(pixels).float()
    assert torch.equal(embedder(images), expected)


class _Hungry(nn.Module):
    """Averages images, and runs out of memory above a number of them."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        if len(x) > self.most:
            raise self.error
        return x.mean((2, 3))


def fake_backbone(module: nn.Module) -> Backbone:
    spec = PreprocessSpec((0.0,) * 3, (1.0,) * 3, "native", None)
    return Backbone(
        BackboneRef("timm", "fake", "fake", "fake", "none"),
        spec,
        "0" * 64,
        "prelogits",
        module=module,
    )


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to …"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "cpu", "windows"])
@pytest.mark.parametrize("most", [1, 3, 5])
def test_batch_that_does_not_fit_is_halved_until_it_does(error, most, caplog):
    images = draw(13)
    expected = images.permute(0, 3, 1, 2).float().div(255).mean((2, 3))
    module = _Hungry(most, error)
    embedder = Embedder(fake_backbone(module), CPU, "fp32", 10)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(embedder(images), expected)
    assert 1 <= embedder.batch_limit <= most
    assert "out of memory with 10 images; going on with 5" in caplog.text


def test_later_batches_start_at_the_lowered_limit():
    module = _Hungry(3, OUT_OF_MEMORY[0])
    embedder = Embedder(fake_backbone(module), CPU, "fp32", 8)
    embedder(draw(8))
    assert embedder.batch_limit == 2
    module.batches.clear()
    embedder(draw(5))
    assert module.batches == [2, 2, 1]


def test_what_was_embedded_before_memory_ran_out_is_kept():
    module = _Hungry(8, OUT_OF_MEMORY[0])
    embedder = Embedder(fake_backbone(module), CPU, "fp32", 8)

    def shrink(*_):
        module.most = 2

    module.register_forward_hook(shrink)
    images = draw(16)
    expected = images.permute(0, 3, 1, 2).float().div(255).mean((2, 3))
    torch.testing.assert_close(embedder(images), expected)
    assert module.batches == [8, 8, 4, 2, 2, 2, 2]


def test_one_image_that_does_not_fit_is_told():
    embedder = Embedder(fake_backbone(_Hungry(0, OUT_OF_MEMORY[0])), CPU, "fp32", 4)
    with pytest.raises(BackboneError, match="fake does not fit into the memory of cpu even with"):
        embedder(draw(4))


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [RuntimeError("sizes\ndo not match"), AssertionError("Input height (28)"), ValueError("no"),
     AssertionError()],
)  # fmt: skip
def test_network_that_refuses_the_images_is_told_in_one_line(error):
    embedder = Embedder(fake_backbone(_Hungry(0, error)), CPU, "fp32", 4)
    with pytest.raises(
        BackboneError, match=r"fake cannot embed.*--fit native.*--fit pad"
    ) as caught:
        embedder(draw(2))
    assert "\n" not in str(caught.value)
    assert embedder.batch_limit == 4


@pytest.mark.parametrize("shape", [(4,), (4, 2, 2), (4, 2, 2, 2)])
def test_output_that_is_not_one_vector_per_image_is_told(shape):
    class Maps(nn.Module):
        def forward(self, x):
            return torch.zeros(shape if len(shape) == 1 else (len(x), *shape[1:]))

    embedder = Embedder(fake_backbone(Maps()), CPU, "fp32", 4)
    with pytest.raises(BackboneError, match=r"pre-logits have shape .*not \(n, dim\)"):
        embedder(draw(4))


# --- on a GPU ---------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "samvit_base_patch16"])
def test_half_precision_on_a_gpu_is_close_to_fp32(name, precision):
    cuda = torch.device("cuda")
    images = draw(4, 64)
    exact = Embedder(load_backbone(name, "none"), cuda, "fp32", 8)(images)
    found = Embedder(load_backbone(name, "none"), cuda, precision, 8)(images)
    assert found.dtype == torch.float32
    assert (torch.cosine_similarity(found, exact) > 0.99).all()


@pytest.mark.gpu
@needs_gpu
def test_fp32_on_a_gpu_equals_the_cpu():
    images = draw(4, 64)
    expected = Embedder(load_backbone("resnet18", "none"), CPU, "fp32", 8)(images)
    found = Embedder(load_backbone("resnet18", "none"), torch.device("cuda"), "fp32", 8)(images)
    assert (found.cpu() - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.gpu
@needs_gpu
def test_exhausted_gpu_memory_is_survived():
    class Greedy(_Hungry):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > self.most:
                torch.empty(1 << 50, device=x.device)
            return x.mean((2, 3))

    embedder = Embedder(fake_backbone(Greedy(2, MemoryError())), torch.device("cuda"), "fp32", 8)
    images = draw(8)
    expected = images.permute(0, 3, 1, 2).float().div(255).mean((2, 3))
    torch.testing.assert_close(embedder(images).cpu(), expected)
    assert embedder.batch_limit == 2
