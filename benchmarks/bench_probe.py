"""A stack of 39 heads against one head in a plain torch loop, over the same epochs."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.measure import Result, compare, interleave
from medplus.config import probe_recipe
from medplus.heads.probe import train_heads

SHAPES = ((546, 512, 2, 10), (7007, 768, 7, 2))  # BreastMNIST with resnet18, DermaMNIST with a ViT
ROUNDS = 7


def run() -> list[Result]:
    results = []
    for n, dim, n_classes, epochs in SHAPES:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(n, dim, generator=generator)
        y = torch.randint(0, n_classes, (n, 1), generator=generator)
        val = (x[: n // 7], y[: n // 7])
        recipe = probe_recipe("grid", seeds=(1, 2, 3), epochs=epochs, patience=epochs)
        ways = {
            "stack": lambda: train_heads((x, y), val, n_classes, recipe),  # noqa: B023
            "loop": lambda: _plain_loop(x, y[:, 0], val, n_classes, epochs),  # noqa: B023
        }
        times = interleave(ways, ROUNDS)
        name = f"39 heads stacked ÷ one head in a plain loop, {n} × {dim}, {n_classes} classes"
        results.append(compare(name, times["stack"], times["loop"], "≤ 2"))
    return results


def _plain_loop(x, y, val, n_classes, epochs) -> None:
    torch.manual_seed(1)
    head = nn.Linear(x.shape[1], n_classes)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-4)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimiser.step()
        with torch.no_grad():
            nn.functional.cross_entropy(head(val[0]), val[1][:, 0]).item()
