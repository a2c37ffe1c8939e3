"""Scores of class probabilities against true labels: pure functions of (y_true, y_score, task).

`score` computes everything at once, with confidence intervals; the other functions compute one
metric each. Accuracy and AUC are those of `medmnist.evaluator`.
"""

from medplus.metrics.balanced import balanced_accuracy_interval, balanced_loss
from medplus.metrics.bootstrap import (
    Replicates,
    percentile_interval,
    replicates,
    resample_counts,
)
from medplus.metrics.calibration import ece
from medplus.metrics.decisions import accuracy, balanced_accuracy, macro_f1, qwk
from medplus.metrics.intervals import (
    Interval,
    acc_interval,
    auc_interval,
    known_to_undercover,
    proportion_interval,
)
from medplus.metrics.predictions import Predictions, check
from medplus.metrics.ranking import auc, auc_per_class, auc_present, mean_average_precision
from medplus.metrics.scores import Scores, score

__all__ = [
    "Interval",
    "Predictions",
    "Replicates",
    "Scores",
    "acc_interval",
    "accuracy",
    "auc",
    "auc_interval",
    "auc_per_class",
    "auc_present",
    "balanced_accuracy",
    "balanced_accuracy_interval",
    "balanced_loss",
    "check",
    "ece",
    "known_to_undercover",
    "macro_f1",
    "mean_average_precision",
    "percentile_interval",
    "proportion_interval",
    "qwk",
    "replicates",
    "resample_counts",
    "score",
]
