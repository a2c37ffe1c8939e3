"""Telling an experiment tracker of every epoch, through Fabric's loggers; one tracker per file."""

from medplus.training.tracking.choice import TRACKERS, open_tracker

__all__ = ["TRACKERS", "open_tracker"]
