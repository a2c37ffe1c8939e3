"""What the heads share as classifiers: what they take, and how scores become predictions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from medplus.metrics.predictions import THRESHOLD
from medplus.vocabulary import MULTI_LABEL, Task


class HeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A head on embeddings: classes of any type, or several labels as columns of 0 and 1.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, sorted; of several labels the numbers of their columns.
    task_ : str
        MedMNIST's word for what was learned: ``binary-class``, ``multi-class``, or
        ``multi-label, binary-class``.
    n_features_in_, feature_names_in_
        As scikit-learn has them.
    """

    classes_: np.ndarray
    task_: Task

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the class of each row, shape (n,), or 0 and 1 per label, shape (n, n_labels).

        The class with the highest probability, among equals the first; a label above 0.5.
        """
        found = self.predict_proba(X)
        if self.task_ == MULTI_LABEL:
            return (found > THRESHOLD).astype(np.int64)
        chosen: np.ndarray = self.classes_[found.argmax(1)]
        return chosen

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probability of each class, or label, shape (n, n_classes).

        In the order of `classes_`; of several labels also one array, as `MLPClassifier` has it.
        """
        check_is_fitted(self)
        return self._scores(validate_data(self, X, reset=False, dtype=np.float32))

    @abstractmethod
    def _scores(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities; X is float32, shape (n, dim)."""

    def _read(self, X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Check what is learned from, and take note of the classes.

        Returns
        -------
        rows : ndarray of float32, shape (n, dim)
        labels : ndarray of int64, shape (n, n_labels)
            Numbers of classes in one column, or 0 and 1.

        Raises
        ------
        ValueError
            As of all estimators of scikit-learn.
        """
        rows: np.ndarray
        rows, y = validate_data(self, X, y, dtype=np.float32, multi_output=True)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        check_classification_targets(y)
        if kind == "multilabel-indicator":
            labels = np.asarray(y.toarray() if hasattr(y, "toarray") else y, np.int64)
            self.classes_, self.task_ = np.arange(labels.shape[1]), MULTI_LABEL
            return rows, labels
        if np.ndim(y) > 1 and np.shape(y)[1] > 1:
            raise ValueError(
                f"y has {np.shape(y)[1]} columns that are not 0 and 1; give one column of classes, "
                "or one of 0 and 1 for each label"
            )
        self.classes_, numbers = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        self.task_ = "multi-class" if len(self.classes_) > 2 else "binary-class"
        return rows, numbers[:, None].astype(np.int64)

    def _labels_of(self, y: ArrayLike) -> np.ndarray:
        """Return labels of further rows as `_read` does.

        Raises
        ------
        ValueError
            If `fit` has not seen one of the classes.
        """
        given = np.asarray(y)
        if self.task_ == MULTI_LABEL:
            return given.astype(np.int64)
        column = column_or_1d(given, warn=False)
        if unknown := sorted({*column.tolist()} - {*self.classes_.tolist()}, key=str):
            raise ValueError(f"class {unknown[0]!r} of the validation rows is not among those of y")
        numbers: np.ndarray = np.searchsorted(self.classes_, column)
        return numbers[:, None].astype(np.int64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
