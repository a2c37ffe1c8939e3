"""A whole learning curve against one probe grid on all of train, in CPU seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.measure import Result, compare
from medplus.config import probe_recipe
from medplus.curves.draws import SHOTS
from medplus.curves.points import Data
from medplus.curves.probes import probe_points
from medplus.curves.subsets import Amount, draw_subsets
from medplus.heads.probe.stack import train_heads

N, DIM, CLASSES, VAL = 7007, 768, 7, 1003  # DermaMNIST with a ViT
EPISODES = 20
SEVEN = SHOTS[:7]
ROUNDS = 2


def run() -> list[Result]:
    data = _data()
    ways = {
        "seven": lambda: _curve(data, SEVEN),
        "ten": lambda: _curve(data, SHOTS),
        "grid": lambda: _grid(data),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            times[name].append(_cpu_seconds(work))
    what = f"× {EPISODES} episodes × 13 rates ÷ one probe grid (3 seeds × 13), {N:,} × {DIM}"
    unit = "s of CPU"
    return [
        compare(f"a curve of 7 sizes (1 … {SEVEN[-1]} shots) {what}", times["seven"],
                times["grid"], "≤ 20", unit),
        compare(f"a curve of 10 sizes (1 … {SHOTS[-1]} shots) {what}", times["ten"],
                times["grid"], "≤ 20", unit),
    ]  # fmt: skip


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _data() -> Data:
    rng = np.random.default_rng(0)
    centres = 0.15 * rng.normal(size=(CLASSES, DIM))
    labels = {"train": np.arange(N) % CLASSES, "val": np.arange(VAL) % CLASSES}
    labels["test"] = labels["val"]
    x = {s: (centres[y] + rng.normal(size=(len(y), DIM))).astype("f4") for s, y in labels.items()}
    return Data(x, {s: y[:, None] for s, y in labels.items()}, CLASSES, "multi-class")


def _curve(data: Data, shots: tuple[int, ...]) -> None:
    strata = data.labels["train"][:, 0]
    subsets = draw_subsets(strata, [Amount(n) for n in shots], EPISODES)
    recipe = probe_recipe("grid", seeds=(1,))
    probe_points(data, "backbone", subsets, recipe, "val", lambda n: None)


def _grid(data: Data) -> None:
    x, y = (
        {s: torch.from_numpy(part[s]) for s in ("train", "val")}
        for part in (data.embeddings, data.labels)
    )
    train_heads((x["train"], y["train"]), (x["val"], y["val"]), CLASSES, probe_recipe("grid"))
