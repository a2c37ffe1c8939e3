"""Fixtures that every test may use: tiny datasets and tiny stores, made from arrays in memory."""

from __future__ import annotations

import os
import signal

# Before torch is imported: on busy cores a second OpenMP thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from medplus.embeddings.info import StoreInfo
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.embeddings.writer import open_writer
from medplus.spec import SCHEMA, ExtractSpec
from medplus.vocabulary import MULTI_LABEL, SPLITS
from tests.headless import browser, visit  # noqa: F401 - fixtures
from tests.records import samples

settings.register_profile(
    "medplus", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("medplus")

Arrays = Mapping[str, np.ndarray] | Sequence[np.ndarray]


def pytest_configure() -> None:
    """Leave the user's caches alone; hear Ctrl-C, which a shell silences in the background."""
    os.environ["MEDPLUS_CACHE"] = tempfile.mkdtemp(prefix="medplus-tests-")
    atexit.register(shutil.rmtree, os.environ["MEDPLUS_CACHE"], ignore_errors=True)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where torch sees no CUDA device; import torch only if asked."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def same_surroundings() -> Iterator[None]:
    """Undo what a test, a fixture of a whole module, or a library changes of the process."""
    environment, filters = dict(os.environ), warnings.filters[:]
    os.environ.pop("COLUMNS", None)
    # A command that ran in a fixture has set these.
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("medplus").setLevel(logging.NOTSET)
    yield
    os.environ.clear()
    os.environ.update(environment)
    warnings.filters[:] = filters  # type: ignore[index]


def by_split(arrays: Arrays) -> dict[str, np.ndarray]:
    """Name three arrays train, val, test; leave a mapping as it is."""
    return dict(arrays) if isinstance(arrays, Mapping) else dict(zip(SPLITS, arrays, strict=True))


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return a function that makes an empty folder; unlike `tmp_path`, one per call."""
    return lambda: tmp_path_factory.mktemp("folder")


@pytest.fixture(scope="session")
def write_npz(new_folder: Callable[[], Path]) -> Callable[..., Path]:
    """Return a function that writes random images and labels in MedMNIST's npz layout.

    ``write_npz("toy", n=(40, 20, 30), size=8, channels=1, classes=2, n_labels=1)``; labels of
    more than one column are 0/1 flags; further keywords replace or add arrays.
    """

    def write(
        name: str = "toy",
        n: Sequence[int] = (40, 20, 30),
        size: int = 8,
        channels: int = 1,
        classes: int = 2,
        n_labels: int = 1,
        seed: int = 0,
        folder: Path | None = None,
        **arrays: np.ndarray,
    ) -> Path:
        rng = np.random.default_rng(seed)
        shape = (size, size) if channels == 1 else (size, size, channels)
        content: dict[str, np.ndarray] = {}
        for split, count in zip(SPLITS, n, strict=True):
            highest = classes if n_labels == 1 else 2
            labels = rng.integers(0, highest, (count, n_labels), dtype=np.uint8)
            if n_labels == 1:
                labels[: min(classes, count), 0] = np.arange(min(classes, count))
            content[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
            content[f"{split}_labels"] = labels
        path = (folder or new_folder()) / f"{name}.npz"
        np.savez(path, **(content | arrays))
        return path

    return write


@pytest.fixture(scope="session")
def store_info() -> Callable[..., StoreInfo]:
    """Return a function that describes a store still to be written.

    ``store_info((3, 2, 2), dim=4, dtype="float32", task="multi-class", classes=3, …)``; further
    keywords are fields of the info.
    """

    def describe(
        n_samples: Sequence[int],
        dim: int,
        *,
        dtype: str = "float32",
        classes: int | list[str] = 3,
        dataset: str = "toy",
        size: int = 28,
        backbone: str = "toynet",
        weights: str | None = "none",
        fit: str | None = "pad",
        feature: str | None = "prelogits",
        precision: str | None = "fp32",
        dataset_path: str = "/data/toy.npz",
        **fields: object,
    ) -> StoreInfo:
        spec = ExtractSpec(dataset_path, size, backbone, weights, fit, feature, precision, dtype)  # type: ignore[arg-type]
        known: dict[str, Any] = {
            "schema_version": SCHEMA,
            "spec": spec,
            "dataset": dataset,
            "dataset_path": dataset_path,
            "dataset_digest": "d" * 64,
            "data_source": "custom",
            "licence": "CC0",
            "task": "multi-class",
            "classes": [f"class {i}" for i in range(classes)]
            if isinstance(classes, int)
            else classes,
            "backbone": backbone,
            "tag": f"{backbone}.tag",
            "weights": weights or "none",
            "weights_sha256": "w" * 64,
            "backbone_digest": "b" * 64,
            "preprocess": {
                "mean": [0.5],
                "std": [0.5],
                "fit": fit or "native",
                "canvas": 224,
                "rgb": True,
            },
            "dim": dim,
            "n_samples": dict(zip(SPLITS, n_samples, strict=True)),
            "versions": {"medplus": "0"},
            "created": "2024-01-01T00:00:00Z",
            **fields,
        }
        key = spec.key(known["dataset_digest"], known["backbone_digest"])
        return StoreInfo(key=key, **known)

    return describe


@pytest.fixture(scope="session")
def store_path() -> Callable[[Path, StoreInfo], Path]:
    """Return a function that says where a store lies under a root: DESIGN's layout."""

    def place(root: Path, info: StoreInfo) -> Path:
        name = f"{info.backbone}-{info.key[:8]}.zarr"
        return root / info.dataset / str(info.size) / name

    return place


@pytest.fixture(scope="session")
def write_store(
    new_folder: Callable[[], Path],
    store_info: Callable[..., StoreInfo],
    store_path: Callable[[Path, StoreInfo], Path],
) -> Callable[..., EmbeddingStore]:
    """Return a function that writes a complete store from embeddings and labels in memory.

    ``write_store((train, val, test), (train_labels, val_labels, test_labels), classes=3,
    task="multi-class", root=…)``; further keywords as for `store_info`. Labels may be (n,).
    """

    def write(
        embeddings: Arrays,
        labels: Arrays,
        *,
        root: Path | None = None,
        names: Arrays | None = None,
        groups: Arrays | None = None,
        index: Arrays | None = None,
        **more: object,
    ) -> EmbeddingStore:
        values = by_split(embeddings)
        truth = {s: np.asarray(y).reshape(len(y), -1) for s, y in by_split(labels).items()}
        if more.get("task") == MULTI_LABEL:
            more.setdefault("classes", truth["train"].shape[1])
        sizes = [len(values[split]) for split in SPLITS]
        info = store_info(sizes, values["train"].shape[1], **more)
        path = store_path(root or new_folder(), info)
        known = [column and by_split(column) for column in (names, groups, index)]
        with open_writer(path, info, samples(truth, *known)) as writer:
            for split in SPLITS:
                layout = info.layout(split)
                for chunk in writer.missing[split]:
                    writer.commit(split, chunk, values[split][layout.rows(chunk)])
            writer.finish({"seconds": 1.0, "device": "none"})
        return open_store(path)

    return write


@pytest.fixture(scope="session")
def write_run(new_folder: Callable[[], Path]) -> Callable[..., tuple[Path, Any]]:
    """Return a function that writes the network of a fine-tuned run, as a training leaves it.

    ``folder, network = write_run("mobilenetv3_small_050", size=28, fit="pad", seed=1)``: the
    network has a `backbone` and a `head`, differs in every tensor from the one it began as, and is
    in eval mode; it takes images of so many channels. Further keywords replace fields of its
    description.
    """
    import torch

    from medplus.backbones.build import load_backbone
    from medplus.backbones.finetuned import NETWORK_FILE, NetworkDescription, write_network
    from medplus.backbones.head import initial_head
    from medplus.training.network import Network, embedding_dim

    def write(
        name: str = "mobilenetv3_small_050",
        size: int = 28,
        fit: Any = None,
        seed: int = 1,
        folder: Path | None = None,
        weights: str = "none",
        channels: int = 3,
        **fields: Any,
    ) -> tuple[Path, Any]:
        backbone = load_backbone(name, weights, size, fit, frozen=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in backbone.module.state_dict().values():
                if value.is_floating_point():
                    # So little that variances stay positive and deep networks finite.
                    noise = torch.rand(value.shape, generator=generator) - 0.5
                    value.mul_(1 + noise / 5).add_(noise / 100)
                else:
                    value += seed
        shape = (size, size) if channels == 1 else (size, size, channels)
        dim = embedding_dim(backbone, torch.zeros(shape, dtype=torch.uint8))
        base, tag = backbone.architecture
        description: dict[str, Any] = {
            "run_id": f"seed{seed}-{seed:08x}",
            "backbone": base,
            "tag": tag,
            "weights_sha256": backbone.weights_sha256,
            "preprocess": vars(backbone.preprocess),
            "feature": backbone.feature,
            "dim": dim,
            "dataset": "toy",
            "size": size,
            "task": "multi-class",
            "classes": ("a", "b", "c"),
            "epoch": 7,
            "val_loss": 0.5,
            "precision": "fp32",
        }
        known = NetworkDescription(**{**description, **fields})
        head = torch.nn.Linear(dim, len(known.classes))
        weight, bias = initial_head(dim, len(known.classes), generator)
        head.load_state_dict({"weight": weight, "bias": bias})
        network = Network(backbone.module, head).eval()
        folder = folder or new_folder() / known.run_id
        folder.mkdir(parents=True, exist_ok=True)
        write_network(folder / NETWORK_FILE, network.state_dict(), known)
        return folder, network

    return write


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out `fsync`: only a power cut would show the difference."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What ``--json`` printed: stdout holds one document and nothing else."""
        return json.loads(self.out)


@pytest.fixture
def cli(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fast_disk: None,
) -> Iterator[Callable[..., Ran]]:
    """Return a function that runs `medplus` with arguments, in an empty working directory."""
    from medplus.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "MEDPLUS_DATA_ROOT", "MEDPLUS_RUNS", "MEDPLUS_STORE"):
        monkeypatch.delenv(name, raising=False)
    root, level = logging.getLogger(), logging.getLogger("medplus").level
    handlers, root_level = root.handlers[:], root.level

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert isinstance(ending.value.code, int)
        return Ran(ending.value.code, printed.out, printed.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(root_level)
    logging.getLogger("medplus").setLevel(level)
