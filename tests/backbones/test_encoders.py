"""Encoders of open_clip and transformers: as the libraries' own example code embeds images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medplus.backbones.build import load_backbone
from medplus.backbones.sources import describe, resolve
from medplus.errors import BackboneError, UsageError
from medplus.preprocess import preprocess
from tests.backbones.hub import serve, use_hub

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Three colour images of 28 px."""
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)


def embed(name: str, images: np.ndarray, **options: Any) -> torch.Tensor:
    backbone = load_backbone(name, size=28, **options)
    with torch.no_grad():
        out: torch.Tensor = backbone.module(
            preprocess(torch.from_numpy(images), backbone.preprocess)
        )
    return out


# --- transformers -------------------------------------------------------------------------------


def _transformers_models() -> dict[str, tuple[str, dict[str, Any]]]:
    conv = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    swin = {
        "image_size": 28,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 7,
    }
    return {
        "vit": ("ViT", SMALL), "dinov2": ("Dinov2", SMALL), "deit": ("DeiT", SMALL),
        "registers": ("Dinov2WithRegisters", SMALL), "siglip": ("SiglipVision", SMALL),
        "resnet": ("ResNet", conv), "swin": ("Swin", swin),
    }  # fmt: skip


def saved(folder: Path, kind: str, images: dict[str, Any] | None = None) -> Any:
    """Write a random model of transformers as its own code does, and return it."""
    import transformers

    name, settings = _transformers_models()[kind]
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(getattr(transformers, f"{name}Config")(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)  # zeros, as they begin with, would hide what is left out
    model.eval().save_pretrained(folder)
    settings = images or {
        "image_mean": MEAN, "image_std": STD, "size": {"height": 28, "width": 28},
        "image_processor_type": "ViTImageProcessor",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model


def example(model: Any, folder: Path, images: np.ndarray) -> Any:
    """Embed images as the cards of the hub show it."""
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil.from_pretrained(folder)
    inputs = processor(images=[Image.fromarray(i) for i in images], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs)


@pytest.mark.parametrize("kind", _transformers_models())
def test_models_of_transformers_embed_as_their_own_code(
    kind: str, tmp_path: Path, images: np.ndarray
) -> None:
    model = saved(tmp_path, kind)
    expected = example(model, tmp_path, images)
    torch.testing.assert_close(
        embed(f"hf:{tmp_path}", images), expected.pooler_output.flatten(1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "before"), [("vit", 1), ("deit", 2), ("registers", 5)])
def test_features_of_tokens(kind: str, before: int, tmp_path: Path, images: np.ndarray) -> None:
    hidden = example(saved(tmp_path, kind), tmp_path, images).last_hidden_state
    cls, patches = hidden[:, 0], hidden[:, before:].mean(1)
    for feature, expected in (
        ("cls", cls), ("avg", patches), ("cls+avg", torch.cat([cls, patches], 1)),
    ):  # fmt: skip
        found = embed(f"hf:{tmp_path}", images, feature=feature)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_projected_embedding_of_a_clip_model_and_its_pooler(
    tmp_path: Path, images: np.ndarray
) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {key: value for key, value in SMALL.items() if "size" not in key[:6]}
    text |= {"hidden_size": 32, "vocab_size": 10, "max_position_embeddings": 4}
    torch.manual_seed(2)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=24)).eval()
    model.save_pretrained(tmp_path)
    settings = {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": 28},
                "crop_size": {"height": 28, "width": 28}, "do_center_crop": True}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]
    with torch.no_grad():
        seen = model.vision_model(pixel_values=x / torch.tensor(STD)[:, None, None]).pooler_output
        projected = model.visual_projection(seen)
    name = f"hf:{tmp_path}"
    torch.testing.assert_close(embed(name, images), projected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embed(name, images, feature="pooler"), seen, rtol=1e-5, atol=1e-5)
    assert describe(name).dim == 24


def test_a_pooler_that_was_never_trained_is_not_used(
    tmp_path: Path, images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file

    model = saved(tmp_path, "vit")
    file = tmp_path / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if "pooler" not in name}
    save_file(kept, file, {"format": "pt"})
    hidden = example(model, tmp_path, images).last_hidden_state
    torch.testing.assert_close(embed(f"hf:{tmp_path}", images), hidden[:, 0], rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="no pooler"):
        load_backbone(f"hf:{tmp_path}", feature="pooler")


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path, "dinov2")
    file = tmp_path / "model.safetensors"
    kept = {
        name: tensor for name, tensor in load_file(file).items() if "layernorm.weight" not in name
    }
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(BackboneError, match="do not fill the model"):
        load_backbone(f"hf:{tmp_path}")


def test_a_masked_autoencoder_hides_nothing(tmp_path: Path, images: np.ndarray) -> None:
    from transformers import ViTMAEConfig, ViTMAEModel

    ViTMAEModel(ViTMAEConfig(**SMALL)).save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    for feature in ("prelogits", "avg"):
        twice = [embed(name, images, feature=feature) for _ in range(2)]
        torch.testing.assert_close(*twice, rtol=1e-5, atol=1e-5)


def test_weights_in_pickles_run_nothing(tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"pooler.dense.weight": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="cannot be read"):
        load_backbone(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({"image_mean": MEAN, "image_std": STD}, MEAN, STD),
        ({"image_mean": MEAN, "image_std": STD, "rescale_factor": 2 / 255},
         tuple(m / 2 for m in MEAN), tuple(s / 2 for s in STD)),
        ({}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)  # fmt: skip
def test_images_are_normalised_as_the_model_says(
    settings: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    saved(tmp_path, "vit", {"size": 28, **settings})
    spec = load_backbone(f"hf:{tmp_path}").preprocess
    assert (spec.mean, spec.std, spec.canvas) == (pytest.approx(mean), pytest.approx(std), 28)


@pytest.mark.parametrize("name", ["hf:dinov2-base", "hf:./nowhere/at/all", "hf:"])
def test_what_is_no_model_of_transformers_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="hf:facebook/dinov2-base"):
        resolve(name)


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoModel": "code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(BackboneError, match="never runs"):
        load_backbone(f"hf:{tmp_path}")


# --- open_clip ----------------------------------------------------------------------------------

TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14, "head_width": 32},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "coca": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14, "head_width": 32,
             "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "timm": {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token",
             "timm_proj": "linear"},
    "timm_conv": {"image_size": 64, "timm_model_name": "resnet10t", "timm_pool": "avg",
                  "timm_proj": "linear"},
}  # fmt: skip


def tower(folder: Path, kind: str) -> Any:
    """Write a random CLIP model in open_clip's format, and return it."""
    import open_clip

    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    model_cfg = {"embed_dim": 24, "vision_cfg": TOWERS[kind], "text_cfg": text, "quick_gelu": True}
    document = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    torch.manual_seed(3)
    model = open_clip.CLIP(**model_cfg).eval()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return model


@pytest.mark.parametrize("kind", TOWERS)
def test_towers_of_open_clip_embed_as_its_own_code(
    kind: str, tmp_path: Path, images: np.ndarray
) -> None:
    import open_clip

    tower(tmp_path, kind)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    side = TOWERS[kind]["image_size"]
    images = np.repeat(np.repeat(images, 8, 1), 8, 2)[:, :side, :side]  # nothing to be resized
    x = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        expected = model.eval().encode_image(x)
        expected = expected[0] if isinstance(expected, tuple) else expected
    backbone = load_backbone(f"open_clip:{tmp_path}", size=side)
    with torch.no_grad():
        found = backbone.module(preprocess(torch.from_numpy(images), backbone.preprocess))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert describe(f"open_clip:{tmp_path}").dim == 24


def test_tokens_of_a_tower(tmp_path: Path, images: np.ndarray) -> None:
    model = tower(tmp_path, "vit")
    spec = load_backbone(f"open_clip:{tmp_path}").preprocess
    with torch.no_grad():
        seen = model.visual.forward_intermediates(
            preprocess(torch.from_numpy(images), spec), indices=1, normalize_intermediates=True,
            output_fmt="NLC", output_extra_tokens=True,
        )  # fmt: skip
    cls, patches = seen["image_intermediates_prefix"][0][:, 0], seen["image_intermediates"][0]
    name = f"open_clip:{tmp_path}"
    torch.testing.assert_close(embed(name, images, feature="cls"), cls)
    torch.testing.assert_close(embed(name, images, feature="avg"), patches.mean(1))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-61/openai", "ViT-B-16"),
        ("open_clip:ViT-B-16/openia", "openai"),
        ("open_clip:ViT-B-16", "no weights"),
    ],
)
def test_what_open_clip_does_not_have_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve(name)


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hf", "open_clip"])
def test_random_weights_are_always_the_same(kind: str, tmp_path: Path, images: np.ndarray) -> None:
    (saved if kind == "hf" else tower)(tmp_path, "vit")
    name = f"{kind}:{tmp_path}"
    one, other = (embed(name, images, weights="none") for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, embed(name, images))


@pytest.mark.parametrize("kind", ["hf", "open_clip"])
def test_weights_are_carried_in_a_folder(kind: str, tmp_path: Path, images: np.ndarray) -> None:
    from medplus.backbones.fetch import fetch_weights

    model, carried = tmp_path / "model", tmp_path / "carried"
    model.mkdir()
    (saved if kind == "hf" else tower)(model, "vit")
    name = f"{kind}:{model}"
    expected = embed(name, images)
    fetch_weights([name], carried)
    for file in model.iterdir():
        if file.suffix != ".json":
            file.unlink()  # it is not from there that they come
    assert torch.equal(embed(name, images, weights=str(carried)), expected)


def published(folder: Path, kind: str) -> tuple[str, dict[str, bytes]]:
    """Write a model; return its name on the hub, and the hub's files."""
    folder.mkdir()
    (saved if kind == "hf" else tower)(folder, "vit")
    files = {f"/org/net/resolve/main/{f.name}": f.read_bytes() for f in folder.iterdir()}
    return "hf:org/net" if kind == "hf" else "open_clip:hf-hub:org/net", files


@pytest.mark.parametrize("kind", ["hf", "open_clip"])
def test_a_model_of_the_hub_is_fetched_once_and_then_had_offline(
    kind: str, tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, files = published(tmp_path / "model", kind)
    with serve(files) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        first = embed(name, images)
    assert torch.equal(first, embed(f"{kind}:{tmp_path / 'model'}", images))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(first, embed(name, images))
    with pytest.raises(BackboneError, match="cannot be had"):
        load_backbone(name.replace("net", "other"))


@pytest.mark.parametrize("name", ["hf:org/net", "open_clip:hf-hub:org/net", "hf-hub:org/net"])
def test_a_gate_is_told_with_its_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve({}, status=403) as hub:
        use_hub(hub, tmp_path, monkeypatch)
        with pytest.raises(
            BackboneError, match=f"behind a gate: ask for access at {hub.url}/org/net,"
        ):
            load_backbone(name)


@pytest.mark.parametrize("kind", ["hf", "open_clip"])
def test_a_fine_tuned_encoder_is_a_backbone(
    kind: str, tmp_path: Path, images: np.ndarray, write_npz: Any
) -> None:
    from medplus.training.finetuning import finetune

    model = tmp_path / "model"
    model.mkdir()
    (saved if kind == "hf" else tower)(model, "vit")
    data, out = str(write_npz("toy", size=28, n=(8, 4, 4))), tmp_path / "runs"
    [run] = finetune(data, backbone=f"{kind}:{model}", runs=out, epochs=1, lr=0.01)
    [folder] = (path.parent for path in out.rglob("network.safetensors"))
    assert run.backbone == f"{kind}:model"
    assert describe(str(folder)).dim == (32 if kind == "hf" else 24)
    trained = embed(str(folder), images)
    assert not torch.equal(trained, embed(f"{kind}:{model}", images))
    shutil.rmtree(model)  # the run knows itself what it is
    torch.testing.assert_close(embed(str(folder), images), trained, rtol=0, atol=0)
