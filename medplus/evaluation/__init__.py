"""Scoring a saved network or head again, on its own data or on others of the same classes."""

from medplus.evaluation.rescore import evaluate

__all__ = ["evaluate"]
