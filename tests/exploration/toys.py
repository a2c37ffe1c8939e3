"""A small dataset whose images, classes and names are told apart, and what a page of it holds."""

import base64
import json
import re

import numpy as np

N = (30, 10, 12)
TYPES = {"Uint8Array": "u1", "Uint16Array": "<u2", "Uint32Array": "<u4", "Float32Array": "<f4"}


def data_of(path):
    """Return what the page at a path holds for its scripts."""
    html = path.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1]
    )


def unpacked(array):
    return np.frombuffer(base64.b64decode(array["data"]), TYPES[array["type"]])


def column(data, key):
    """Return the category of every image."""
    found = next(one for one in data["columns"] if one["key"] == key)
    return np.array(found["names"], dtype=object)[unpacked(found["values"])]


def toy(write_npz, folder, size=12):
    """Write images that are bright where the class is 1; return the file."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in zip(("train", "val", "test"), N, strict=True):
        labels = (np.arange(n) % 3 == 0).astype(np.uint8)
        images = rng.integers(0, 120, (n, size, size)) + 100 * labels[:, None, None]
        arrays |= {f"{split}_labels": labels[:, None], f"{split}_images": images.astype(np.uint8)}
    return write_npz("toy", n=N, size=size, folder=folder, **arrays)
