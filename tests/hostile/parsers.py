"""Every parser of files that others may have written: a valid example of each, and its reader."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medplus.backbones.finetuned import read_network
from medplus.backbones.weights import read_weights_file, state_sha256
from medplus.backbones.weights_folder import read_manifest
from medplus.config import finetune_recipe
from medplus.datasets import decode, npzfile
from medplus.datasets.description import read_description
from medplus.datasets.imagefolder import read_content, read_folder
from medplus.embeddings.info import read_info
from medplus.embeddings.store import find_damage
from medplus.reading import Reading
from medplus.run.ledger import read_predictions, read_record
from medplus.seal import seal
from medplus.spec import SCHEMA, ExtractSpec
from medplus.sweep.grid import read_grid
from medplus.tensorfile import read_tensors, write_tensors
from medplus.yamlfile import read_yaml
from tests.hostile.makers import vouch, write_npz
from tests.records import make_record

_READING = Reading(size=8, policy="squash", channels="rgb")
_PATHS = [f"{word}/{i}.png" for word in "ab" for i in range(4)]
_SPLITS = ("train", "train", "val", "test")


@dataclass(frozen=True)
class Parser:
    """A reader of one file, called ``name`` in a folder, with valid content to begin from."""

    name: str
    content: Callable[[], bytes]
    read: Callable[[Path], Any]

    def try_on(self, folder: Path, data: bytes) -> Any:
        """Put the data where the file belongs, and read it."""
        path = folder / self.name
        path.write_bytes(data)
        return self.read(path)


def _read_npz(path: Path) -> None:
    with npzfile.open_npz(path) as archive:
        headers = npzfile.read_headers(archive, path)
        npzfile.read_phantom_note(archive, path)
        for header in headers.values():
            list(npzfile.read_blocks(archive, path, header))


def _read_image(path: Path) -> None:
    decode.glance(path)
    decode.read(path, _READING)


def _read_folder(path: Path) -> None:
    """Read a table or a split file beside images, whose content plays no part yet."""
    for name in _PATHS:
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).touch()
    read_content(read_folder(path.parent))


def _read_store(path: Path) -> None:
    with suppress(ValueError, KeyError, TypeError, RecursionError):  # a stranger can seal, too
        document = json.loads(path.read_bytes())
        document["attributes"]["medplus"].pop("seal", None)
        document["attributes"]["medplus"] = seal(document["attributes"]["medplus"])
        path.write_text(json.dumps(document))
    find_damage(path.parent, read_info(path.parent))


def _saved(save: Callable[[Any], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _image(ending: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return _saved(lambda file: Image.fromarray(pixels).save(file, ending))


def _table() -> bytes:
    rows = [f"{path},{_SPLITS[i % 4]},{path[0]}" for i, path in enumerate(_PATHS)]
    return "\n".join(["path,split,label", *rows, ""]).encode()


def _parquet() -> bytes:
    import pandas as pd

    frame = pd.read_csv(io.BytesIO(_table()))
    return _saved(lambda file: frame.to_parquet(file))


def _written(write: Callable[[Path], object]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


def _state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def _safetensors() -> bytes:
    from safetensors.torch import save

    return save(_state())


def _read_predictions(path: Path) -> None:
    vouch(path.parent)
    read_predictions(path.parent)


def _record() -> bytes:
    return json.dumps(seal({**make_record(k=5, protocol="knn").to_dict(), "files": {}})).encode()


def _store() -> bytes:
    spec = ExtractSpec("toy.npz", 8, "pixels", dtype="float32")
    info = {
        "schema_version": SCHEMA, "key": spec.key("d" * 64, "b" * 64), "spec": vars(spec),
        "dataset": "toy", "dataset_path": "toy.npz", "dataset_digest": "d" * 64,
        "data_source": "custom", "licence": "", "task": "binary-class", "classes": ["a", "b"],
        "backbone": "pixels", "tag": "pixels", "weights": "none", "weights_sha256": "0" * 64,
        "backbone_digest": "b" * 64, "preprocess": {"fit": "native"}, "dim": 4,
        "n_samples": {"train": 2, "val": 1, "test": 1}, "versions": {},
        "created": "2026-01-01T00:00:00Z", "complete": True,
    }  # fmt: skip
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"medplus": seal(info)}}
    return json.dumps(document).encode()


@cache
def parsers() -> dict[str, Parser]:
    """Return all parsers, by what they read."""
    weights = {"file": "w.safetensors", "sha256": "0" * 64, "bytes": 3}
    manifest = json.dumps({"format": 1, "weights": {"resnet18.a1_in1k": weights}}).encode()
    grid = b"datasets: breastmnist\nsizes: [28]\nbackbones: pixels\nseeds: [1, 2]\nprotocols:\n" \
        b"  knn: {k: [1, 3]}\n  probe: {lr: [0.1]}\n"  # fmt: skip
    described = b"name: toy\ntask: binary-class\nclasses: [a, b]\nsize: 8\nseed: 3\n" \
        b"fractions: {train: 0.6, val: 0.2, test: 0.2}\nvalue_range: [0, 1]\n"  # fmt: skip
    split = "".join(f"{p},{_SPLITS[i % 4]}\n" for i, p in enumerate(_PATHS))
    scores = {"test_score": np.ones((3, 2), np.float32), "test_true": np.zeros((3, 1), np.uint8)}
    images = {
        f"image.{ending}": Parser(f"image.{ending}", lambda kind=kind: _image(kind), _read_image)
        for ending, kind in (("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF"), ("bmp", "BMP"))
    }
    sealed = Parser(
        "network.safetensors",
        lambda: _written(lambda path: write_tensors(path, _state(), {"network": {"format": 1}})),
        lambda path: (read_tensors(path), read_network(path)),
    )
    listed = [
        Parser("toy.npz", lambda: _written(write_npz), _read_npz),
        Parser("labels.csv", _table, _read_folder),
        Parser("labels.parquet", _parquet, _read_folder),
        Parser("splits.csv", lambda: b"path,split\n" + split.encode(), _read_folder),
        Parser("dataset.yaml", lambda: described, lambda path: read_description(path.parent)),
        Parser("grid.yaml", lambda: grid, read_grid),
        Parser("recipe.yaml", lambda: b"lr: 0.1\nepochs: 3\nflip: none\n",
               lambda path: finetune_recipe(str(path))),
        Parser("any.yaml", lambda: b"a: &a {b: [1, 2.5, null]}\nc: {<<: *a}\nd: |\n  text\n",
               lambda path: read_yaml(path, "config")),
        Parser("zarr.json", _store, _read_store),
        Parser("record.json", _record, lambda path: read_record(path.parent)),
        Parser("predictions.npz", lambda: _saved(lambda file: np.savez(file, **scores)),
               _read_predictions),
        Parser("w.safetensors", _safetensors, lambda path: state_sha256(read_weights_file(path))),
        Parser("w.pth", lambda: _saved(lambda file: torch.save(_state(), file)),
               lambda path: state_sha256(read_weights_file(path))),
        Parser("manifest.json", lambda: manifest, lambda path: read_manifest(path.parent)),
        sealed,
    ]  # fmt: skip
    return images | {parser.name: parser for parser in listed}
