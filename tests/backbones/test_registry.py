"""The registry of encoders: complete, buildable, and used like any other backbone."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from medplus.backbones.build import load_backbone
from medplus.backbones.flops import cost_of
from medplus.backbones.registry import Encoder, encoders, overlap
from medplus.backbones.sources import resolve
from medplus.embeddings.derived import DerivedStore
from medplus.embeddings.extract import extract
from medplus.errors import BackboneError, UsageError
from tests.backbones.hub import serve, use_hub

FACTS: dict[str, Any] = {
    "title": "Tiny", "of": "tests", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "size": 32,
    "licence": "MIT", "gated": False, "page": "https://example.org/org/tiny", "paper": "–",
    "pretraining": "nothing", "overlap": {"toy": "it was trained on toys"}, "sources": ("here",),
}  # fmt: skip
VIT = {"patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2, "mlp_layer": "SwiGLUPacked",
       "reg_tokens": 2, "init_values": 1e-5}  # fmt: skip


TINY: dict[str, Any] = {
    "source": "timm", "architecture": "vit_tiny_patch16_224", "arguments": VIT,
    "feature": "cls+avg", "dim": 48, "parameters": 1,
    "weights": {"repository": "org/tiny", "file": "tiny.safetensors", "ignore": ("decoder.",),
                "fresh": ("norm.",)},
}  # fmt: skip


@pytest.fixture
def register() -> Iterator[Callable[..., Encoder]]:
    """Return what puts a small encoder into the registry, like `TINY` but for what is given."""

    def put(**fields: Any) -> Encoder:
        encoders()["tiny"] = Encoder(name="tiny", **{**TINY, **FACTS, **fields})
        return encoders()["tiny"]

    yield put
    del encoders()["tiny"]


@pytest.fixture
def tiny(register: Callable[..., Encoder]) -> Encoder:
    """Put an encoder into the registry whose file has a decoder and lacks a norm."""
    return register()


@pytest.fixture
def network() -> Any:
    """Return the network that the tiny encoder is, with weights of its own."""
    torch.manual_seed(4)
    arguments = {**VIT, "mlp_layer": timm.layers.SwiGLUPacked}
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, **arguments).eval()


def file_of(network: Any) -> dict[str, torch.Tensor]:
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("norm.")}
    return {**state, "decoder.weight": torch.zeros(2)}


def test_every_encoder_says_what_a_user_has_to_know() -> None:
    assert {"uni", "virchow2", "rad_dino", "biomedclip"} <= set(encoders())
    from medmnist import INFO

    for encoder in encoders().values():
        assert set(encoder.overlap) <= set(INFO), encoder.name
        assert encoder.page.startswith("https://"), encoder.name
        assert all(source.startswith("https://") for source in encoder.sources), encoder.name
        assert encoder.source == "code" or encoder.arguments or encoder.architecture
        assert encoder.parameters or encoder.source == "code", encoder.name


@pytest.mark.extensive
@pytest.mark.parametrize("name", [n for n, e in encoders().items() if e.source != "code"])
def test_every_encoder_is_built_with_its_published_dimension_and_parameters(name: str) -> None:
    from medplus.backbones.sources import medical

    encoder, ref = encoders()[name], resolve(name, "none")
    with torch.device("meta"):
        module = medical.build(ref, encoder.size, None, None).module
        images = torch.zeros(1, 3, encoder.size, encoder.size)
        assert module(images).shape == (1, encoder.dim)
    assert sum(parameter.numel() for parameter in module.parameters()) == encoder.parameters


def test_an_encoder_is_what_its_file_has(tiny: Encoder, network: Any, tmp_path: Path) -> None:
    file = tmp_path / "tiny.safetensors"
    save_file(file_of(network), file)
    backbone = load_backbone("tiny", str(file))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = network.forward_features(x)  # its norm is as it was made: ones and zeros
        expected = torch.cat([tokens[:, 0], tokens[:, 3:].mean(1)], 1)
        torch.testing.assert_close(backbone.module(x), expected)
    spec = backbone.preprocess
    assert (spec.mean, spec.std, spec.canvas) == (tiny.mean, tiny.std, 32)
    with torch.no_grad():
        cls = load_backbone("tiny", str(file), feature="cls").module(x)
    torch.testing.assert_close(cls, tokens[:, 0])


def test_a_file_of_something_else_is_refused(tiny: Encoder, network: Any, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({**file_of(network), "cls_token": torch.zeros(1, 1, 3)}, file)
    with pytest.raises(BackboneError, match="do not fit Tiny"):
        load_backbone("tiny", str(file))


def test_weights_come_from_the_hub_or_its_gate_is_told(
    tiny: Encoder, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"/org/tiny/resolve/main/tiny.safetensors": save(file_of(network))}
    with serve(files) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        loaded = load_backbone("tiny")
    kept = {k: v for k, v in loaded.module.state_dict().items() if "norm." not in k[:13]}
    assert all(
        torch.equal(v, file_of(network)[k.removeprefix("network.")]) for k, v in kept.items()
    )
    with serve({}, status=403) as hub:
        use_hub(hub, tmp_path / "other", monkeypatch)
        with pytest.raises(BackboneError, match=f"tiny are behind a gate: .*{hub.url}/org/tiny,"):
            load_backbone("tiny")


def test_a_masked_autoencoder_pools_its_patches_before_a_new_norm(
    register: Callable[..., Encoder], tmp_path: Path
) -> None:
    """As RETFound's own models_vit.py does, from a file with a decoder and a command line."""
    plain = {"patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}
    rules = {"ignore": ("decoder", "mask_token", "norm."), "fresh": ("fc_norm.",)}
    register(arguments={**plain, "global_pool": "avg"}, feature="prelogits", weights=rules)
    torch.manual_seed(4)
    mae = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, **plain).eval()
    file = tmp_path / "mae.pth"
    decoder = {"decoder_pos_embed": torch.zeros(2), "mask_token": torch.zeros(1, 1, 24)}
    torch.save({"model": {**mae.state_dict(), **decoder}, "args": Namespace(lr=1.0)}, file)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        tokens = mae.blocks(mae.norm_pre(mae._pos_embed(mae.patch_embed(x))))
        expected = torch.nn.LayerNorm(24, eps=1e-6)(tokens[:, 1:].mean(1))
        torch.testing.assert_close(load_backbone("tiny", str(file)).module(x), expected)


def test_of_self_distillation_the_teacher_is_taken_at_other_sizes_than_its_own(
    register: Callable[..., Encoder], network: Any, tmp_path: Path
) -> None:
    register(arguments={**VIT, "img_size": 64}, feature="avg", dim=24,
             weights={"ignore": ("mask_token",)})  # fmt: skip
    sized = {"img_size": 64, "dynamic_img_size": True, "mlp_layer": timm.layers.SwiGLUPacked}
    large = timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**VIT, **sized}).eval()
    teacher = {f"backbone.{name}": tensor for name, tensor in large.state_dict().items()}
    file = tmp_path / "teacher.pth"
    extra = {"backbone.mask_token": torch.zeros(1, 24), "dino_head.mlp.0.bias": torch.zeros(3)}
    torch.save({"teacher": {**teacher, **extra}}, file)
    for size, fit in ((32, None), (48, "native")):
        x = torch.rand(2, 3, size, size)
        with torch.no_grad():
            expected = large.forward_features(x)[:, 3:].mean(1)
            found = load_backbone("tiny", str(file), size, fit).module(x)
        torch.testing.assert_close(found, expected)
    with pytest.raises(BackboneError, match="patches of 16 px, which do not tile 28 px"):
        load_backbone("tiny", "none", 28, "native")


def test_the_hubs_configuration_counts_where_transformers_loads_the_weights(
    register: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import ViTConfig, ViTModel

    from medplus.backbones.fetch import fetch_weights

    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 24, "image_size": 32, "patch_size": 16}  # fmt: skip
    register(source="transformers", arguments={"model_type": "vit", **settings, "image_size": 48},
             architecture=None, dim=32, weights={"repository": "org/vit"})  # fmt: skip
    torch.manual_seed(3)
    model = ViTModel(ViTConfig(**settings)).eval()  # with a pooler, which the feature leaves out
    model.save_pretrained(tmp_path / "model")
    files = {f"/org/vit/resolve/main/{file.name}": file.read_bytes()
             for file in (tmp_path / "model").iterdir()}  # fmt: skip
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        hidden = model(pixel_values=x).last_hidden_state
        expected = torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], 1)
        with serve(files) as hub:
            use_hub(hub, tmp_path / "cache", monkeypatch)
            torch.testing.assert_close(load_backbone("tiny").module(x), expected)
            fetch_weights(["tiny"], tmp_path / "carried")
        with serve({}, status=404) as hub:
            use_hub(hub, tmp_path / "empty", monkeypatch)
            carried = load_backbone("tiny", str(tmp_path / "carried"))
    with torch.no_grad():
        torch.testing.assert_close(carried.module(x), expected)
    assert not [name for name in carried.module.state_dict() if "pooler" in name]


def test_a_tower_takes_only_its_own_size(register: Callable[..., Encoder]) -> None:
    tower = {"embed_dim": 16, "image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    register(source="open_clip", arguments=tower, architecture=None, dim=64, feature="avg",
             weights={})  # fmt: skip
    assert load_backbone("tiny", "none").module(torch.zeros(1, 3, 32, 32)).shape == (1, 64)
    with pytest.raises(UsageError, match="takes images of 32 px, not of 28"):
        load_backbone("tiny", "none", 28, "native")


def test_a_fine_tuned_encoder_is_one_again(
    tiny: Encoder, write_npz: Callable[..., Path], tmp_path: Path, network: Any
) -> None:
    from medplus import finetune

    data, file = str(write_npz("toy", size=28, n=(8, 4, 4))), tmp_path / "tiny.safetensors"
    save_file(file_of(network), file)
    [run] = finetune(data, backbone="tiny", weights=str(file), epochs=1, runs=tmp_path)
    found = load_backbone(run.path)
    assert (found.licence, overlap(found.name, "toy")) == ("MIT", "it was trained on toys")


def test_embeddings_of_images_that_it_has_seen_carry_a_warning(
    tiny: Encoder, write_npz: Callable[..., Path], tmp_path: Path, network: Any
) -> None:
    data, file = str(write_npz("toy", size=28, n=(4, 3, 3))), tmp_path / "tiny.safetensors"
    save_file(file_of(network), file)
    seen = extract(data, backbone="tiny", weights=str(file), store=tmp_path).info.warnings
    assert any("tiny" in text and "it was trained on toys" in text for text in seen)
    random = extract(data, backbone="tiny", weights="none", store=tmp_path).info.warnings
    assert not any("toys" in text for text in random)
    for name in ("tiny@some-run", "hf-hub:org/tiny", "open_clip:hf-hub:Org/Tiny@main"):
        assert overlap(name, "toy") == "it was trained on toys"
    assert overlap("tiny", "breastmnist") is overlap("hf:org/other", "toy") is None


def test_the_licence_of_weights_is_recorded(
    tiny: Encoder, write_npz: Callable[..., Path], tmp_path: Path, network: Any
) -> None:
    data, file = str(write_npz("toy", size=28, n=(4, 3, 3))), tmp_path / "tiny.safetensors"
    save_file(file_of(network), file)
    for weights, licence in ((str(file), "MIT"), ("none", "")):
        found = extract(data, backbone="tiny", weights=weights, store=tmp_path / licence)
        assert found.info.weights_licence == licence
    pixels = extract(data, backbone="pixels", store=tmp_path)
    joined = DerivedStore(
        [pixels, extract(data, backbone="tiny", weights=str(file), store=tmp_path)]
    ).info
    assert joined.weights_licence == "MIT"
    assert any("it was trained on toys" in text for text in joined.warnings)


def test_flops_are_those_of_its_own_size(tiny: Encoder) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        load_backbone("tiny", "none").module(torch.zeros(1, 3, 32, 32))
    attention = 2 * 2 * 7 * 7 * 24  # of 7 tokens, which the counter does not see on a CPU
    assert cost_of(resolve("tiny", "none")).flops == counter.get_total_flops() + attention


def test_what_needs_a_file_or_code_says_so(tiny: Encoder) -> None:
    lone = {"weights": {}, "overlap": {}}
    encoders()["tiny"] = Encoder(**{**tiny.model_dump(), **lone})
    with pytest.raises(UsageError, match=r"get them at https://example.org.*--weights FILE"):
        resolve("tiny")
    encoders()["tiny"] = Encoder(**{**tiny.model_dump(), **lone, "source": "code"})
    with pytest.raises(UsageError, match="needs code of its own"):
        resolve("tiny")


def test_the_command_lists_and_tells(tiny: Encoder, cli: Callable[..., Any]) -> None:
    listed = json.loads(cli("backbones", "--medical", "--json").out)["encoders"]
    assert {row["name"] for row in listed} == set(encoders())
    assert cli("backbones", "--medical", "tests").out.count("tiny") == 1
    told = cli("backbones", "tiny").out
    for word in ("Tiny", "https://example.org/org/tiny", "MIT", "toy: it was trained on toys"):
        assert word in told
    assert cli("backbones", "--medical", "bones").code == 2
