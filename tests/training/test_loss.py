"""Losses and probabilities, against torch's own criteria and scipy."""

from __future__ import annotations

import pytest
import scipy.special
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from medplus.training.loss import make_targets, probabilities, sample_losses

SMOOTHINGS = st.floats(0, 0.99)


def draw(n=7, n_classes=4, multi_label=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, n_classes, generator=generator)
    highest, columns = (2, n_classes) if multi_label else (n_classes, 1)
    return logits, torch.randint(highest, (n, columns), generator=generator)


SHAPES = {"n": st.integers(1, 9), "n_classes": st.integers(2, 14), "seed": st.integers(0, 99)}


@given(**SHAPES, smoothing=SMOOTHINGS)
def test_mean_equals_torchs_cross_entropy(n, n_classes, seed, smoothing):
    logits, labels = draw(n, n_classes, seed=seed)
    targets = make_targets(labels, n_classes, False, smoothing)
    expected = F.cross_entropy(logits, labels[:, 0], label_smoothing=smoothing)
    torch.testing.assert_close(sample_losses(logits, targets, False).mean(), expected)


@given(**SHAPES)
def test_mean_equals_torchs_binary_cross_entropy(n, n_classes, seed):
    logits, labels = draw(n, n_classes, multi_label=True, seed=seed)
    losses = sample_losses(logits, make_targets(labels, n_classes, True), True)
    expected = F.binary_cross_entropy_with_logits(logits, labels.float())
    assert losses.shape == (n,)
    torch.testing.assert_close(losses.mean(), expected)


@given(**SHAPES, smoothing=SMOOTHINGS)
def test_smoothed_flags_are_a_two_class_problem_each(n, n_classes, seed, smoothing):
    logits, labels = draw(n, n_classes, multi_label=True, seed=seed)
    targets = make_targets(labels, n_classes, True, smoothing)
    pairs = torch.stack((torch.zeros_like(logits), logits), -1).flatten(0, 1)  # sigmoid = softmax
    expected = F.cross_entropy(pairs, labels.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(sample_losses(logits, targets, True).mean(), expected)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_judged_in_float32(dtype, multi_label):
    logits, labels = draw(multi_label=multi_label)
    logits, targets = logits.to(dtype), make_targets(labels, 4, multi_label)
    losses = sample_losses(logits, targets, multi_label)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, sample_losses(logits.float(), targets, multi_label))
    assert probabilities(logits, multi_label).dtype == torch.float32


@pytest.mark.parametrize("scale", [1, 100])
def test_probabilities_equal_scipys(scale):
    logits = scale * draw()[0]
    softmax, sigmoid = probabilities(logits, False), probabilities(logits, True)
    expected = torch.from_numpy(scipy.special.softmax(logits.double().numpy(), 1)).float()
    torch.testing.assert_close(softmax, expected)
    expected = torch.from_numpy(scipy.special.expit(logits.double().numpy())).float()
    torch.testing.assert_close(sigmoid, expected)
