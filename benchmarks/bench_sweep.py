"""`medplus sweep`: two workers against one, its overhead per job, and planning against reading."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import yaml

import medplus
from benchmarks.measure import Result, compare, interleave, seconds
from medplus import remembered
from medplus.seal import seal
from medplus.spec import ExtractSpec
from medplus.sweep.conduct import Sweep
from medplus.sweep.engines.local import LocalEngine
from medplus.sweep.grid import read_grid
from medplus.sweep.job import Place
from medplus.sweep.worker import Worker

ROUNDS = 2
DATASETS, SEEDS = 8, 8


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return [
            *_workers(Path(folder)),
            _beyond_the_work(Path(folder)),
            *_finished_paper_grid(Path(folder)),
        ]


def _workers(folder: Path) -> list[Result]:
    paths = [_write_images(folder, i) for i in range(DATASETS)]
    protocols = {"finetune": {"recipe": "modern", "epochs": 2, "batch_size": 32}}
    names = ("plain", "one", "one, whole", "two", "two, whole")
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(ROUNDS):
        place = folder / f"plain-{number}"
        times["plain"].append(seconds(lambda: _plain(paths, place)))  # noqa: B023
        for name, workers in (("one", 1), ("two", 2)):
            home = folder / f"{name}-{number}"
            sweep = _sweep(folder, paths, protocols, home)
            engine = LocalEngine(workers)
            times[f"{name}, whole"].append(seconds(lambda: sweep.run(engine)))  # noqa: B023
            times[name].append(_working(sweep))
    n = DATASETS * SEEDS
    return [
        compare(f"{n} tiny fine-tunings: one worker ÷ two, once started", times["one"],
                times["two"], "≥ 1.7"),
        compare("the same, with the start of the workers", times["one, whole"],
                times["two, whole"], ""),
        compare("the same: one worker ÷ a plain loop of medplus.finetune", times["one"],
                times["plain"], ""),
    ]  # fmt: skip


def _beyond_the_work(folder: Path) -> Result:
    """Measure in processor time what a worker does besides its jobs: planning, claims, logs."""
    paths = [_write_images(folder, i) for i in range(DATASETS)]
    protocols = {"knn": {"k": 1}, "probe": {"epochs": 1}}
    beyond = []
    for number in range(ROUNDS + 1):  # the first is not counted
        home, sweep = folder / f"by-hand-{number}", _sweep(folder, paths, protocols, folder / "x")
        sweep.place = replace(sweep.place, store=f"{home}/a", runs=f"{home}/b")
        start = time.process_time()
        for path in paths:
            store = medplus.extract(path, backbone="pixels", store=home / "stores")
            medplus.knn(store, [1], runs=home / "runs")
            medplus.probe(store, range(SEEDS), epochs=1, runs=home / "runs")
        done = time.process_time()
        Worker(sweep.grid, sweep.place, "here").run()
        taken = time.process_time() - done
        beyond.append(1000 * (taken - (done - start)) / (3 * DATASETS))
    return Result(
        "milliseconds of processor time that a job costs beyond its work",
        beyond[1:], "≤ 10", f"{3 * DATASETS} jobs",
    )  # fmt: skip


def _working(sweep: Sweep) -> float:
    """Return the time from the beginning of the first job to the end of the last, by their logs."""
    logs = list(sweep.claims.folder.glob("logs/*"))
    begun = min(datetime.fromisoformat(log.read_text()[:23].replace(",", ".")) for log in logs)
    return max(log.stat().st_mtime for log in logs) - begun.timestamp()


def _plain(paths: list[str], home: Path) -> None:
    for path in paths:
        for seed in range(SEEDS):
            medplus.finetune(path, None, "pixels", seed, recipe="modern", epochs=2, batch_size=32,
                             runs=home / "runs")  # fmt: skip


def _sweep(folder: Path, datasets: list[str], protocols: dict, home: Path) -> Sweep:
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump({
        "datasets": datasets, "backbones": "pixels", "seeds": list(range(SEEDS)),
        "protocols": protocols,
    }))  # fmt: skip
    place = Place(str(folder), str(home / "stores"), str(home / "runs"))
    return Sweep(read_grid(file), place)


def _write_images(folder: Path, number: int) -> str:
    rng = np.random.default_rng(number)
    arrays = {}
    for split, count in (("train", 512), ("val", 128), ("test", 128)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8).reshape(-1, 1) % 2
    path = folder / f"toy{number}.npz"
    np.savez(path, **arrays)
    return str(path)


# --- planning ------------------------------------------------------------------------------------


def _finished_paper_grid(folder: Path) -> list[Result]:
    """Plan the paper's whole grid where all of it is finished: 480 stores and 3,360 runs."""
    root = folder / "paper"
    grid = Path(__file__).parents[1] / "configs" / "paper.yaml"
    _write_finished(grid, root, Path(_write_images(folder, 99)))
    command = [
        sys.executable, "-m", "medplus", "sweep", str(grid), "--status", "--data-root", str(root),
        "--store", str(root / "stores"), "--runs", str(root / "runs"),
    ]  # fmt: skip

    def start(*arguments: str) -> None:
        subprocess.run(arguments, check=True, capture_output=True)

    def plan_anew() -> None:
        remembered.recalled.cache_clear()
        Sweep(read_grid(grid), place).plan()

    place = Place(str(root), str(root / "stores"), str(root / "runs"))
    plan = Sweep(read_grid(grid), place).plan()
    assert len(plan.records) == 3360 and len(plan.stores) == 480 and not plan.cells
    files = [*root.rglob("record.json"), *root.glob("stores/*/*/*.zarr/zarr.json")]
    times = interleave(
        {
            "plan": plan_anew,
            "read": lambda: [json.loads(path.read_bytes()) for path in files],
            "status": lambda: start(*command),
            "torch": lambda: start(sys.executable, "-c", "import torch"),
        },
        5,
    )
    return [
        compare("plan the finished paper grid (3,840 stores and runs) ÷ json.loads of their files",
                times["plan"], times["read"], "plan ≤ 1 s"),
        compare("medplus sweep --status on the finished paper grid ÷ python -c 'import torch'",
                times["status"], times["torch"], "--status ≤ 1 s"),
    ]  # fmt: skip


def _write_finished(grid_file: Path, root: Path, npz: Path) -> None:
    """Copy one real store and its runs to every place of the grid, under that place's names."""
    home = root / "real"
    store = medplus.extract(str(npz), backbone="pixels", store=home / "stores", precision="fp32")
    real = {
        "knn": medplus.knn(store, runs=home / "runs")[0],
        "probe": medplus.probe(store, seeds=[1], epochs=1, runs=home / "runs")[0],
        "finetune": medplus.finetune(str(npz), None, "pixels", 1, epochs=1, runs=home / "runs")[0],
    }
    document = json.loads((store.path / "zarr.json").read_text())
    grid = read_grid(grid_file)
    for spec in map(_settled, grid.specs()):
        _write_store(root, spec, document)
        for protocol, record in real.items():
            for name, written in _records(grid, protocol, spec, record.to_dict()):
                folder = root / "runs" / protocol / spec.dataset / str(spec.size)
                folder = folder / spec.backbone / name
                folder.mkdir(parents=True)
                (folder / "record.json").write_text(json.dumps(seal(written)))


def _settled(spec: ExtractSpec) -> ExtractSpec:
    return replace(spec, precision="fp32")


def _write_store(root: Path, spec: ExtractSpec, document: dict) -> None:
    document = json.loads(json.dumps(document))
    info = document["attributes"]["medplus"]
    info.pop("seal")
    digest = spec.key(info["dataset_digest"], info["backbone_digest"])
    info.update(dataset=spec.dataset, spec=asdict(spec), backbone=spec.backbone, tag=spec.backbone,
                key=digest, weights="pretrained")  # fmt: skip
    document["attributes"]["medplus"] = seal(info)
    name = f"{spec.backbone}-{digest[:8]}.zarr"
    path = root / "stores" / spec.dataset / str(spec.size) / name
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(document))


def _records(grid, protocol: str, spec: ExtractSpec, record: dict) -> Iterator[tuple[str, dict]]:
    common = {"dataset": spec.dataset, "size": spec.size, "backbone": spec.backbone,
              "tag": spec.backbone, "weights": "pretrained", "spec": asdict(spec)}  # fmt: skip
    if protocol == "finetune":
        record = {**record, **common}
        recipe = {**grid.protocols.finetune.options}
        del recipe["recipe"]
        for seed in grid.seeds:
            yield f"run-{seed}", {**record, "seed": seed,
                                  "config": {**record["config"], "recipe": recipe}}  # fmt: skip
        return
    record = {**record, **common}
    if protocol == "knn":
        yield "run", record
        return
    config = {**record["config"], "epochs": grid.protocols.probe.epochs}
    for seed in grid.seeds:
        yield f"run-{seed}", {**record, "seed": seed, "config": config}
