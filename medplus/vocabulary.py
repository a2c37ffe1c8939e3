"""The words of medplus: names and choices that every layer shares. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

Task = Literal["multi-class", "binary-class", "ordinal-regression", "multi-label, binary-class"]
"""MedMNIST's task types, spelled as `medmnist.INFO` spells them."""

Split = Literal["train", "val", "test"]
Fit = Literal["pad", "resize", "native"]
Precision = Literal["fp32", "bf16", "fp16"]
StoreDtype = Literal["float32", "float16"]
Metric = Literal["l2", "cosine"]
Vote = Literal["majority", "distance"]
SearchBackend = Literal["faiss", "torch", "bf16"]
Trainable = Literal["all", "head"]
NormStats = Literal["update", "frozen"]
Flip = Literal["auto", "none", "horizontal", "dihedral"]
Schedule = Literal["paper", "cosine", "constant"]
Optimizer = Literal["adamw", "sgd"]

MULTI_LABEL: Task = "multi-label, binary-class"
SPLITS: tuple[Split, ...] = get_args(Split)
SIZES: tuple[int, ...] = (28, 64, 128, 224)
PAPER_SEEDS: tuple[int, ...] = (9930641, 115149041, 252139603)
"""The three seeds of the paper's reference configuration."""
PAPER_K = 11
