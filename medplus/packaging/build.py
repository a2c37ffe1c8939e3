"""Packaging a run: written only when it is proven to give the run's own scores."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medplus._version import __version__
from medplus.analysis.panel import panel as panel_of_run
from medplus.datasets.dataset import ImageDataset
from medplus.embeddings.provenance import images_of
from medplus.errors import MedplusError, RunError, UsageError, first_line, pip_install, writing
from medplus.naming import utc_now
from medplus.packaging.card import croissant, model_card
from medplus.packaging.module import PackagedModel
from medplus.prediction.model import Model, load_model
from medplus.prediction.scorers import Votes
from medplus.vocabulary import MULTI_LABEL

LOADER = "medplus_model.py"
ABOUT = "model.json"
TOLERANCE = 1e-4
"""By how much scores of fp32 may differ from medplus's own."""
COARSE = 0.02
"""By how much scores may differ on average from saved ones that are of half precision."""
_PATTERNS = 8
_MOST_COMPARED = 512
_BATCH = 32
_OPSET = 20
_MOST_IN_ONE_FILE = 1_500_000_000  # bytes; a protobuf ends at 2 GiB


@dataclass(frozen=True)
class Package:
    """What was packaged.

    Attributes
    ----------
    path : Path
        The folder or archive.
    patterns : float
        The largest difference of scores from medplus's own on test patterns, in fp32.
    test : float or None
        The same from the run's saved test predictions; None where its images are not at hand.
    notes : tuple of str
        What was assumed, or could not be compared.
    """

    path: Path
    patterns: float
    test: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**vars(self), "path": str(self.path), "notes": list(self.notes)}


def package(
    run: str | Path,
    out: str | Path,
    *,
    store: str | Path = "embeddings",
    data_root: str | Path = "data",
    backbone: str | None = None,
    positive: str | None = None,
    by: str | Sequence[str] = (),
    audit: str | Path | None = None,
    exclude: str | Path | None = None,
) -> Package:
    """Write a run as one model that needs medplus no more.

    The folder holds ``model.onnx`` (opset 20, any number of images) and ``model.pt2`` (of
    `torch.export`), both with preprocessing, backbone and head; ``medplus_model.py``, a loader that
    needs numpy and onnxruntime only; ``model.json`` with classes, temperature and the SHA-256 of
    every file; ``parity.npz``, test patterns (no patient's images) with the scores they have; a
    model card (``README.md``, with the Hugging Face hub's metadata) and ``croissant.json``. Of kNN,
    ``neighbours.npz`` has the embeddings and labels of train.

    Parameters
    ----------
    run : str or Path
        Folder of a run of `medplus.probe`, `medplus.knn` or `medplus.finetune`.
    out : str or Path
        A new folder, or a ``.zip``.
    store, data_root : str or Path
        Where embeddings and datasets lie.
    backbone : str, optional
        Where the backbone is now; a Python file runs only when it is named.
    positive, by
        What the card tells of: as for `medplus panel`.
    audit : str or Path, optional
        The ``suspects.csv`` of `medplus.audit`, of which the card tells.
    exclude : str or Path, optional
        The table of suspects that the run was made without.

    Raises
    ------
    UsageError
        If `out` exists, the network cannot be exported, or a package is missing.
    RunError
        If the exported model does not give the run's scores; nothing is written then.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run] = medplus.probe(store, seeds=1, lr=0.01)
    >>> medplus.package(run.path, "model").path.is_dir()
    True
    """
    target = Path(out)
    if target.exists():
        raise UsageError(f"{target} exists already; delete it, or name another with --out")
    _check_installed("onnxruntime", "onnxscript")
    model = load_model(
        run, store=store, backbone=backbone, device="cpu", precision="fp32", exclude=exclude
    )
    images, notes = _images_of(model, data_root)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        writing(target, "free space, or name another --out"),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".package-") as temporary,
    ):
        folder = Path(temporary) / target.name.removesuffix(".zip")
        folder.mkdir()
        _write_model(model, folder)
        loader = _write_about(model, folder, _patterns(model))
        worst = loader.check()
        test = None if images is None else _compare(model, loader, images)
        card = model_card(model, worst, test, positive=positive, by=by, audit=audit)
        (folder / "README.md").write_text(card, encoding="utf-8")
        document = json.dumps(croissant(model.record), indent=2, ensure_ascii=False)
        (folder / "croissant.json").write_text(document, encoding="utf-8")
        _seal(folder)
        made = _archived(folder, Path(temporary)) if target.suffix == ".zip" else folder
        made.replace(target)
    return Package(target, worst, test, (*model.notes, *notes))


def check(package: str | Path) -> float:
    """Return by how much a package's scores of its test patterns differ from when it was made.

    Raises
    ------
    UsageError
        If it is no package.
    RunError
        If a file is not the packaged one, or scores differ by more than `TOLERANCE`.
    """
    path = Path(package)
    _check_installed("onnxruntime")
    if path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory(prefix="medplus-package-") as temporary:
            with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
                archive.extractall(temporary)
            found = next(Path(temporary).rglob(ABOUT), None)
            if found is not None:
                return check(found.parent)
    if not (path / ABOUT).is_file():
        raise UsageError(f"{path} is no package of medplus: it has no {ABOUT}")
    try:
        return float(_loader(path).check())
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"the package {path} is damaged or computes otherwise here: {error}"
        ) from None


# --- writing ------------------------------------------------------------------------------------


def _check_installed(*packages: str) -> None:
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    if missing:
        raise UsageError(
            f"a packaged model needs {' and '.join(missing)}; run: {pip_install(*missing)}"
        )


def _write_model(model: Model, folder: Path) -> None:
    """Export the module twice; whatever its tracers print is of no use to anyone here."""
    module = PackagedModel(model).eval().requires_grad_(False)
    example = torch.from_numpy(_patterns(model)[:2])
    names = ["embedding", "scores"][: 1 + (not isinstance(model.scorer, Votes))]
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(redirect_stdout(StringIO()))
            stack.enter_context(redirect_stderr(StringIO()))
            warnings.simplefilter("ignore")
            batch = {"images": {0: torch.export.Dim("n", min=1, max=1 << 20)}}
            exported = torch.export.export(module, (example,), dynamic_shapes=batch, strict=False)
            saved = BytesIO()  # a file on a full disk would abort the whole process
            torch.export.save(exported, saved)
            (folder / "model.pt2").write_bytes(saved.getbuffer())
            program = torch.onnx.export(
                exported, input_names=["images"], output_names=names, dynamo=True,
                opset_version=_OPSET, verbose=False,
            )  # fmt: skip
            assert program is not None
            size = sum(weight.nbytes for weight in module.state_dict().values())
            program.save(folder / "model.onnx", external_data=size > _MOST_IN_ONE_FILE)
    except OSError:
        raise
    except Exception as error:
        raise UsageError(
            f"{model.record.tag} cannot be exported ({type(error).__name__}: "
            f"{first_line(error)[:200]}); its run serves with medplus predict"
        ) from error


def _write_about(model: Model, folder: Path, patterns: np.ndarray) -> Any:
    """Write what the loader reads, with the scores of the patterns; return the model loaded."""
    record, votes = model.record, model.scorer
    how = None
    if isinstance(votes, Votes):
        how = {"k": votes.k, "vote": votes.vote, "metric": votes.reference.metric}
        train = votes.reference.train.whole()
        np.savez(folder / "neighbours.npz", embeddings=train, labels=votes.labels)
    np.savez(folder / "parity.npz", images=patterns, scores=_scores(model, patterns))
    shutil.copyfile(Path(__file__).with_name(LOADER), folder / LOADER)
    about = {
        "format": 1,
        "run": record.run_id,
        "protocol": record.protocol,
        "backbone": record.tag,
        "dataset": record.dataset,
        "task": record.task,
        "classes": record.classes,
        "multi_label": record.task == MULTI_LABEL,
        "shape": list(patterns.shape[1:]),
        "policy": model.reading.policy,
        "temperature": model.temperature,
        "thresholds": _thresholds(model),
        "votes": how,
        "made": utc_now(),
        "medplus": __version__,
        "torch": torch.__version__,
        "sha256": {},
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
    return _loader(folder)


def _thresholds(model: Model) -> dict[str, dict[str, float]]:
    """Return the thresholds of every class's score that were chosen on val, by what they keep."""
    panel = panel_of_run(model.path)
    return {
        one.name: {
            decision: float(point.threshold)
            for decision, point in one.points.items()
            if point.threshold is not None and np.isfinite(point.threshold)
        }
        for one in panel.classes
    }


def _seal(folder: Path) -> None:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    about["sha256"] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir()) if path.name != ABOUT
    }  # fmt: skip
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")


def _archived(folder: Path, within: Path) -> Path:
    archive = within / "archive.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f"{folder.name}/{path.name}")
    return archive


def _loader(folder: Path) -> Any:
    """Return the packaged model, by medplus's own copy of the loader: none of the folder is run."""
    spec = importlib.util.spec_from_file_location("medplus_model", Path(__file__).with_name(LOADER))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model(folder)


# --- proof --------------------------------------------------------------------------------------


def _patterns(model: Model) -> np.ndarray:
    """Return test patterns, uint8: noise of several grains, nobody's images."""
    size, channels = model.record.size, () if model.reading.channels == "grey" else (3,)
    rng = np.random.default_rng(0)
    made = []
    for i in range(_PATTERNS):
        grain = min(size, 1 << (i % 4))
        side = -(-size // grain)
        coarse = rng.integers(0, 256, (side, side, *channels), dtype=np.uint8)
        made.append(np.repeat(np.repeat(coarse, grain, 0), grain, 1)[:size, :size])
    return np.stack(made)


def _scores(model: Model, images: np.ndarray) -> np.ndarray:
    parts = [
        model.score(model.embed(torch.tensor(images[first : first + _BATCH])))
        for first in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts)


def _images_of(model: Model, data_root: str | Path) -> tuple[ImageDataset | None, list[str]]:
    """Return the data that the run was scored on, if they are at hand."""
    try:
        return images_of(model.record, model.path, data_root), []
    except MedplusError as error:
        return None, [f"not compared with the run's test predictions, since {first_line(error)}"]


def _compare(model: Model, loader: Any, images: ImageDataset) -> float:
    """Return the largest difference from the run's saved test predictions, if it does not count.

    Those in half precision are compared with coarsely, those out of fold not at all.

    Raises
    ------
    RunError
        If the model does not give the run's scores.
    """
    saved, test, folds = model.predictions, images.splits["test"], model.record.folds
    of = saved["test_index"] if folds is None else test.positions
    rows = np.asarray(test.images[np.searchsorted(test.positions, of[:_MOST_COMPARED])])
    found, known = loader.predict(rows), saved["test_score"][:_MOST_COMPARED]
    ours = _scores(model, rows)
    off = float(np.abs(found - ours).max())
    if not off <= TOLERANCE:
        raise RunError(
            f"the exported model gives other scores than {model.path}: they differ by {off:.2g} on "
            "its test images; it is not packaged"
        )
    if folds is not None:
        return off  # each saved one is of the folds that have not seen the image
    half = sorted({s.precision for s in model.record.specs if s.precision not in (None, "fp32")})
    difference = np.abs(found - known)
    most, mean = float(difference.max()), float(difference.mean())
    if half and mean > COARSE:
        raise RunError(
            f"{model.path} was computed in {', '.join(half)}, which gives other scores of "
            f"{model.record.backbone} than fp32, in which it is packaged: by {mean:.2g} on "
            f"average, {most:.2g} at most; make the run again with --precision fp32"
        )
    if not half and most > TOLERANCE:
        raise RunError(
            f"the model of {model.path} gives other scores than it saved: they differ by "
            f"{most:.2g} on its test images; it is not packaged"
        )
    return most
