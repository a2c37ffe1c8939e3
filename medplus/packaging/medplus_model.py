"""Use of this model from Python: needs numpy and onnxruntime, and Pillow to read image files.

    from medplus_model import Model

    model = Model("this_folder")
    scores = model.predict(model.read(["image.png"]))     # float32 (n, n_classes)
    names = model.labels(scores)

or `python medplus_model.py IMAGES...` for a CSV, and `python medplus_model.py --check` to prove
that it computes here what it computed where it was made. Written by medplus; no part of medplus is
needed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# Of what is computed here nothing is told to anyone; nor is a file of it left among temporary ones.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

if TYPE_CHECKING:
    from PIL.Image import Image

TOLERANCE = 1e-4
"""By how much scores may differ from those of the machine that made the package."""


class Model:
    """A packaged model.

    Parameters
    ----------
    folder : str or Path
        With ``model.json``, ``model.onnx`` and, of kNN, ``neighbours.npz``.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        self.folder = Path(folder)
        self.about = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        self.classes: list[str] = self.about["classes"]
        for name, known in self.about["sha256"].items():
            found = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            if found != known:
                raise ValueError(f"{self.folder / name} is not the file that was packaged")
        self._session = onnxruntime.InferenceSession(
            str(self.folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        self._train: dict[str, Any] = {}
        if self.about["votes"] is not None:
            with np.load(self.folder / "neighbours.npz", allow_pickle=False) as file:
                self._train = {name: file[name] for name in file.files}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (size, size) or (size, size, 3)."""
        return tuple(self.about["shape"])

    def read(self, paths: list[str] | list[Path]) -> np.ndarray:
        """Read image files of 8 bits as the training images were, uint8 (n, *shape)."""
        return np.stack([self._read(Path(path)) for path in paths])

    def _read(self, path: Path) -> np.ndarray:
        from PIL import Image, ImageOps

        with Image.open(path) as opened:
            if opened.mode in ("I", "F") or opened.mode.startswith("I;"):
                raise ValueError(f"{path} has more than 8 bits; give the model uint8 arrays")
            image: Image.Image = ImageOps.exif_transpose(opened)
            if "A" in image.mode or "transparency" in image.info:
                image = image.convert("RGBA")
                ground = Image.new("RGBA", image.size, "black")
                image = Image.alpha_composite(ground, image)
            image = image.convert("L" if len(self.shape) == 2 else "RGB")
        return np.asarray(self._square(image, path))

    def _square(self, image: Image, path: Path) -> Image:
        """Bring an image to its size as medplus does: bicubic, by the data's own policy."""
        from PIL import Image as Pillow

        (width, height), (size, *_), policy = image.size, self.shape, self.about["policy"]
        if width == height or policy == "squash":
            return image.resize((size, size), Pillow.Resampling.BICUBIC)
        if policy == "crop":
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            return image.resize((size, size), Pillow.Resampling.BICUBIC, box=box)
        if policy == "pad":
            scale = size / max(width, height)
            inner = (max(round(width * scale), 1), max(round(height * scale), 1))
            canvas = Pillow.new(image.mode, (size, size))
            resized = image.resize(inner, Pillow.Resampling.BICUBIC)
            canvas.paste(resized, ((size - inner[0]) // 2, (size - inner[1]) // 2))
            return canvas
        raise ValueError(f"{path} has {width} × {height} px, and images must be square")

    def embed(self, images: np.ndarray, batch: int = 32) -> np.ndarray:
        """Return embeddings of uint8 images, float32 (n, dim)."""
        return self._run(images, batch)[0]

    def predict(
        self, images: np.ndarray, *, calibrated: bool = False, batch: int = 32
    ) -> np.ndarray:
        """Return scores of uint8 images, float32 (n, n_classes).

        Parameters
        ----------
        images : ndarray of uint8, shape (n, size, size) or (n, size, size, 3)
        calibrated : bool
            At the temperature that was fitted on val.
        batch : int
            Images at once.
        """
        found = self._run(images, batch)
        scores = found[1] if len(found) > 1 else self._votes(found[0])
        return self._scaled(scores) if calibrated else scores

    def labels(self, scores: np.ndarray) -> list[str]:
        """Return the class of every image, or the labels that hold, separated by '|'."""
        if self.about["multi_label"]:
            return [
                "|".join(name for name, own in zip(self.classes, row) if own > 0.5)  # noqa: B905
                for row in scores
            ]
        if len(self.classes) == 2:
            return [self.classes[int(row[1] > 0.5)] for row in scores]
        return [self.classes[i] for i in scores.argmax(1)]

    def positive(self, scores: np.ndarray, name: str, threshold: str | float) -> np.ndarray:
        """Tell which images are called positive of a class, bool (n,).

        Parameters
        ----------
        name : str
            The class, or label.
        threshold : str or float
            Of its score; or what was chosen on val, by its name in ``model.json``, such as
            ``"sensitivity ≥ 95 % on val"``.
        """
        if isinstance(threshold, str):
            threshold = self.about["thresholds"][name][threshold]
        own = scores[:, self.classes.index(name)]
        if len(self.classes) == 2 and name == self.classes[0]:
            own = 1 - scores[:, 1].astype(np.float64)
        return np.asarray(own >= threshold)

    def check(self) -> float:
        """Return by how much scores of the packaged test patterns differ at most from then.

        Raises
        ------
        ValueError
            If it is more than `TOLERANCE`.
        """
        with np.load(self.folder / "parity.npz", allow_pickle=False) as file:
            images, expected = file["images"], file["scores"]
        worst = float(np.abs(self.predict(images) - expected).max())
        if not worst <= TOLERANCE:
            raise ValueError(f"scores differ by {worst:.2g} from those it had when it was packaged")
        return worst

    def _run(self, images: np.ndarray, batch: int) -> list[np.ndarray]:
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            wanted = " × ".join(map(str, self.shape))
            raise ValueError(
                f"images must be uint8 of {wanted}, not {images.dtype} of {images.shape[1:]}"
            )
        parts = [
            self._session.run(None, {"images": images[first : first + batch]})
            for first in range(0, max(1, len(images)), batch)
        ]
        return [np.concatenate(own) for own in zip(*parts)]  # noqa: B905 - also for old Pythons

    def _votes(self, embeddings: np.ndarray) -> np.ndarray:
        """Return shares of the votes of the nearest train images, ties by their order."""
        how, train = self.about["votes"], self._train
        x, q = train["embeddings"].astype(np.float64), embeddings.astype(np.float64)
        if how["metric"] == "cosine":
            x, q = (a / np.where((n := np.linalg.norm(a, axis=1, keepdims=True)) == 0, 1, n)
                    for a in (x, q))  # fmt: skip
        shares = np.empty((len(q), len(self.classes)), np.float32)
        for i, one in enumerate(q):
            squared = np.square(x - one).sum(1)
            near = np.argsort(squared, kind="stable")[: how["k"]]
            weights = np.ones(len(near))
            if how["vote"] == "distance":
                with np.errstate(divide="ignore"):
                    own = squared[near]  # of cosines, half of it is 1 - cosine
                    weights = 1 / (own / 2 if how["metric"] == "cosine" else np.sqrt(own))
                weights = np.isinf(weights) if np.isinf(weights).any() else weights
            labels = train["labels"][near]
            flags = labels if self.about["multi_label"] else labels == np.arange(len(self.classes))
            shares[i] = weights @ flags / weights.sum()
        return shares

    def _scaled(self, scores: np.ndarray) -> np.ndarray:
        temperature = self.about["temperature"]
        if temperature is None:
            raise ValueError("no temperature was fitted: the run kept no predictions of val")
        score = scores.astype(np.float64).clip(1e-6, None)
        if self.about["multi_label"]:
            score = score.clip(None, 1 - 1e-6)
            return np.asarray(1 / (1 + ((1 - score) / score) ** (1 / temperature)))
        power = score ** (1 / temperature)
        return np.asarray(power / power.sum(1, keepdims=True))


def main(arguments: list[str]) -> int:
    """Check the package, or write a CSV of predictions to the terminal."""
    model = Model()
    if arguments == ["--check"]:
        print(f"scores differ by {model.check():.2g} at most: it is the model that was packaged")
        return 0
    if not arguments:
        print(__doc__)
        return 2
    rows = csv.writer(sys.stdout)
    rows.writerow(["name", "predicted", *(f"p_{name}" for name in model.classes)])
    for path in arguments:
        scores = model.predict(model.read([path]))
        rows.writerow([path, model.labels(scores)[0], *(f"{p:.9g}" for p in scores[0])])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
