"""Telling an experiment tracker of every epoch; one tracker per file."""

from medplus.training.tracking.tracker import TRACKERS, Tracker, open_tracker

__all__ = ["TRACKERS", "Tracker", "open_tracker"]
