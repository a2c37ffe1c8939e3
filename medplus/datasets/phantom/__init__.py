"""Phantoms: deterministic synthetic stand-ins for the 12 datasets, for tests and first steps.

A phantom has its dataset's flag, task, channels, classes, label layout and imbalance, and images
that look like the real ones from afar. Scores on a phantom say nothing about medicine.
"""

from medplus.datasets.phantom.labels import split_counts
from medplus.datasets.phantom.preview import contact_sheet
from medplus.datasets.phantom.writer import write_phantom, write_phantoms

__all__ = ["contact_sheet", "split_counts", "write_phantom", "write_phantoms"]
