"""Scores of class probabilities against true labels: pure functions of (y_true, y_score, task).

`score` computes everything at once, with bootstrap confidence intervals; the other functions
compute one metric each. Accuracy and AUC are those of `medmnist.evaluator`.
"""

from medplus.metrics.bootstrap import (
    Replicates,
    affordable_resamples,
    percentile_interval,
    replicates,
    resample_counts,
)
from medplus.metrics.calibration import ece
from medplus.metrics.decisions import accuracy, balanced_accuracy, macro_f1, qwk
from medplus.metrics.predictions import Predictions, check
from medplus.metrics.ranking import auc, auc_per_class, auc_present, mean_average_precision
from medplus.metrics.scores import Scores, score

__all__ = [
    "Predictions",
    "Replicates",
    "Scores",
    "accuracy",
    "affordable_resamples",
    "auc",
    "auc_per_class",
    "auc_present",
    "balanced_accuracy",
    "check",
    "ece",
    "macro_f1",
    "mean_average_precision",
    "percentile_interval",
    "qwk",
    "replicates",
    "resample_counts",
    "score",
]
