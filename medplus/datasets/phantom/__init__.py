"""Phantoms: deterministic synthetic stand-ins for the 12 datasets, for tests and first steps.

A phantom has its dataset's flag, task, channels, classes, label layout and imbalance, and images
that look like the real ones from afar. Scores on a phantom say nothing about medicine.
"""

from __future__ import annotations

from medplus.datasets.phantom.labels import DEFAULT_SAMPLES, split_counts
from medplus.datasets.phantom.painter import Scene, render, render_sizes, scenes
from medplus.datasets.phantom.preview import contact_sheet
from medplus.datasets.phantom.writer import PhantomMark, read_mark, write_phantom, write_phantoms

__all__ = [
    "DEFAULT_SAMPLES",
    "PhantomMark",
    "Scene",
    "contact_sheet",
    "read_mark",
    "render",
    "render_sizes",
    "scenes",
    "split_counts",
    "write_phantom",
    "write_phantoms",
]
