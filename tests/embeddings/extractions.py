"""What the tests of the extraction share: one of pixels, a network, and what lies there after."""

from __future__ import annotations

import numpy as np
import torch

from medplus.embeddings.extract import extract_all
from medplus.spec import CHOICES, specs
from medplus.vocabulary import SPLITS

NETWORK = "lcnet_035"
N_CHUNKS = 4  # of `npz`: 2 + 1 + 1


def images_of(npz):
    with np.load(npz) as file:
        return {split: file[f"{split}_images"] for split in SPLITS}


def run(npz, root, backbones=("pixels",), **options):
    choices = {name: options.pop(name) for name in CHOICES if name in options}
    asked = specs([str(npz)], backbones=backbones, weights="none", **choices)
    return extract_all(asked, store=root, **options)


def chunk_files(path):
    """Return every file of a store but its attributes, which tell when it was made."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file != path / "zarr.json"
    }


def leftovers(root):
    return [p for p in root.rglob("*") if ".tmp-" in p.name or p.suffix in (".lock", ".partial")]


class Scaled(torch.nn.Module):
    """A backbone to play with: the pixels times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x.flatten(1) * self.factor
