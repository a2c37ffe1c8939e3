"""Columns that several of the page's tables have."""

from __future__ import annotations

from medplus.reporting.palette import PROTOCOL_LABELS, label_of
from medplus.reporting.table import Column, number

DATASET = Column("Dataset", "dataset")
PROTOCOL = Column("Protocol", "protocol", PROTOCOL_LABELS.__getitem__)
BACKBONE = Column("Backbone", "backbone", label_of)
NAME = Column("Backbone", "backbone")
"""A backbone by its whole name."""
SIZE = number("Size (px)", "size")
PAIR = (Column("Backbone", "backbone_a", label_of), Column("Against", "backbone_b", label_of))
