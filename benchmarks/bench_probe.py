"""Stacks of heads against one head in a plain loop, scikit-learn, and the bandwidth of memory."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Result, compare, interleave, seconds
from medplus.config import probe_recipe
from medplus.heads.probe.feed import Feed
from medplus.heads.probe.stack import train_heads

SHAPES = ((546, 512, 2, 10), (7007, 768, 7, 2))  # BreastMNIST with resnet18, DermaMNIST with a ViT
LARGE = (165_466, 768, 8, 1)  # TissueMNIST with a ViT
HEADS = {1: ((1,), 1), 3: ((1, 2, 3), 1), 39: ((1, 2, 3), 13), 120: ((1, 2, 3), 40)}
"""Seeds and number of learning rates."""
ROUNDS = 7


def run() -> list[Result]:
    return [*(r for shape in SHAPES for r in _small(*shape)), *_large(*LARGE)]


def _small(n: int, dim: int, n_classes: int, epochs: int) -> list[Result]:
    x, y, val = _data(n, dim, n_classes)
    ways = {
        heads: (lambda heads=heads: _stack(x, y, val, n_classes, heads, epochs)) for heads in HEADS
    }
    ways |= {
        "plain": lambda: _plain_loop(x, y[:, 0], val, n_classes, epochs),
        "loader": lambda: _plain_loop(x, y[:, 0], val, n_classes, epochs, loader=True),
        "products": _products(n, dim, n_classes, 39, epochs),
    }
    times = interleave({str(name): way for name, way in ways.items()}, ROUNDS)
    regression = [
        seconds(lambda: LogisticRegression(max_iter=100).fit(x.numpy(), y[:, 0].numpy()))
        for _ in range(3)
    ]
    what = f"{n:,} × {dim}, {n_classes} classes, {epochs} epochs"
    goals = {1: "", 3: "≤ 0.7", 39: "≤ 1.3", 120: ""}
    results = [
        compare(f"{heads} heads stacked ÷ one in a plain loop, {what}", times[str(heads)],
                times["plain"], goals[heads])
        for heads in HEADS
    ]  # fmt: skip
    results += [
        compare(f"one head with a DataLoader ÷ 39 stacked, {what}", times["loader"],
                times["39"], ""),
        compare(f"39 heads stacked ÷ their matrix products alone, {what}", times["39"],
                times["products"], ""),
        compare(f"scikit-learn's LogisticRegression ÷ one head stacked, {what}", regression,
                times["1"][:3], ""),
    ]  # fmt: skip
    return results


def _large(n: int, dim: int, n_classes: int, epochs: int) -> list[Result]:
    """Set an epoch against reading the features once, in order and gathered at random."""
    x, y, val = _data(n, dim, n_classes)
    order = torch.randperm(n)
    times = interleave(
        {
            "one": lambda: _stack(x, y, val, n_classes, 1, epochs),
            "three": lambda: _stack(x, y, val, n_classes, 3, epochs),
            "read": x.sum,
            "gather": lambda: [x[rows] for rows in order.split(64)],
            "windows": lambda: [None for _ in Feed(x).windows(order.unsqueeze(0), 64)],
            "many": lambda: _stack(x, y, val, n_classes, 39, epochs),
            "products": _products(n, dim, n_classes, 39, epochs),
            "plain": lambda: _plain_loop(x, y[:, 0], val, n_classes, epochs),
        },
        2,
    )
    what = f"{n:,} × {dim}, {n_classes} classes, an epoch"
    return [
        compare(f"one head ÷ reading the features once, {what}", times["one"], times["read"], ""),
        compare(f"one head ÷ gathering its batches alone, {what}", times["one"],
                times["windows"], ""),
        compare(f"gathering batch by batch ÷ in windows, {what}", times["gather"],
                times["windows"], ""),
        compare(f"39 heads stacked ÷ their matrix products alone, {what}", times["many"],
                times["products"], ""),
        compare(f"3 heads stacked ÷ one in a plain loop, {what}", times["three"],
                times["plain"], "≤ 0.7"),
    ]  # fmt: skip


def _products(n, dim, n_classes, heads, epochs):
    """Return the matrix products of all steps alone, on one batch: logits, and gradients."""
    seeds, n_rates = HEADS[heads]
    x = torch.randn(len(seeds), 64, dim)
    weight = torch.randn(len(seeds), n_rates * n_classes, dim)

    def work() -> None:
        for _ in range(epochs * -(-n // 64)):
            torch.bmm(torch.bmm(weight, x.mT), x)

    return work


def _data(n, dim, n_classes):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, dim, generator=generator)
    y = torch.randint(0, n_classes, (n, 1), generator=generator)
    return x, y, (x[: n // 7], y[: n // 7])


def _stack(x, y, val, n_classes, heads, epochs) -> None:
    seeds, n_rates = HEADS[heads]
    rates = tuple(1e-5 * 1.2**i for i in range(n_rates))
    recipe = probe_recipe("paper", seeds=seeds, lr=rates, epochs=epochs, patience=epochs)
    train_heads((x, y), val, n_classes, recipe)


def _plain_loop(x, y, val, n_classes, epochs, loader: bool = False) -> None:
    torch.manual_seed(1)
    head = nn.Linear(x.shape[1], n_classes)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-4)
    batches = DataLoader(TensorDataset(x, y), 64, shuffle=True) if loader else None
    for _ in range(epochs):
        shuffled = ((x[rows], y[rows]) for rows in torch.randperm(len(x)).split(64))
        for some, labels in batches or shuffled:
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(some), labels).backward()
            optimiser.step()
        with torch.no_grad():
            nn.functional.cross_entropy(head(val[0]), val[1][:, 0]).item()
