"""scikit-learn's own checks of estimators."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from medplus.sklearn import EmbeddingTransformer, KNNProbe, LinearProbe

OF_ROWS = [KNNProbe(k=3), LinearProbe(lr=0.1), LinearProbe("lbfgs", strength=1.0)]
MORE = [KNNProbe(k=3, metric="cosine", vote="distance"), LinearProbe(), LinearProbe("ridge")]


def expected_failures(estimator):
    if isinstance(estimator, KNNProbe):
        return {
            "check_classifiers_multilabel_output_format_predict_proba": "a label that all "
            "neighbours have, or none, has the share 1 or 0, which the check takes for no "
            "probability; scikit-learn's own neighbours are checked by another rule, as lists"
        }
    return {}


@parametrize_with_checks(OF_ROWS, expected_failed_checks=expected_failures)
def test_heads_are_estimators(estimator, check):
    check(estimator)


@pytest.mark.extensive
@parametrize_with_checks(MORE, expected_failed_checks=expected_failures)
def test_heads_of_other_settings_are_estimators(estimator, check):
    check(estimator)


@parametrize_with_checks([EmbeddingTransformer("pixels", store=None)])
def test_a_transformer_of_images_is_an_estimator(estimator, check):
    """Of which scikit-learn checks only what needs no rows of numbers."""
    check(estimator)
