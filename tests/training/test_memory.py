"""Which batch fits: found by trying, halving from above, and nothing is changed by it."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.config import FinetuneRecipe, finetune_recipe
from medplus.errors import RunError
from medplus.training import memory, step
from medplus.training.memory import largest_batch
from medplus.training.network import build_network
from medplus.vocabulary import MULTI_LABEL

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def no_collection():
    """Leave out the garbage collection, which takes longer than a tiny step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory.gc, "collect", lambda: 0)
        yield


@pytest.fixture(scope="module")
def search(tiny_backbone, learnable):
    """Return a function that searches on a device where only so many images fit.

    It returns the batch found, the batches tried, and the network before and after.
    """

    def run(
        most, limit, recipe=None, task="multi-class", precision="fp32", error=None, n=(50, 4, 4)
    ):
        recipe = (recipe or FinetuneRecipe()).model_copy(update={"precision": precision})
        images, backbone = learnable(task, n=n), tiny_backbone()
        network = build_network(backbone, 12, images.n_classes, recipe, torch.Generator())
        tried = []

        def fail(module, arguments):
            tried.append(len(arguments[0]))
            if len(arguments[0]) > limit:
                raise error or torch.OutOfMemoryError("CUDA out of memory.")

        before = copy.deepcopy(network.state_dict())
        network.register_forward_pre_hook(fail)
        found = largest_batch(network, images, backbone.preprocess, recipe, CPU, most)
        return found, tried, before, network

    return run


@settings(max_examples=30)
@given(most=st.integers(1, 200), limit=st.integers(1, 200))
def test_it_is_the_largest_of_the_halves_that_fits(search, most, limit):
    found, tried, _, _ = search(most, limit)
    halves = [most >> i for i in range(most.bit_length())]
    assert found == max(half for half in halves if half <= limit)
    assert tried == [half for half in halves if half >= found]


def test_a_batch_may_be_larger_than_the_train_split(search):
    found, tried, _, _ = search(64, 64, n=(5, 4, 4))
    assert (found, tried) == (64, [64])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_every_way_to_run_out_of_memory_counts(search, error):
    assert search(8, 2, error=error)[0] == 2


def test_not_even_one_image_is_an_error_with_a_remedy(search):
    with pytest.raises(RunError, match=r"not even one image .* of cpu; use another --device"):
        search(8, 0)


RECIPES = {
    "paper": finetune_recipe("paper"),
    "modern": finetune_recipe("modern", precision="fp32"),
    "head": finetune_recipe("paper", trainable="head", norm_stats="frozen"),
    "sgd": finetune_recipe("paper", optimizer="sgd", lr=1.0),
}


@pytest.mark.parametrize("task", ["binary-class", "multi-class", MULTI_LABEL])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_network_is_left_as_it_was(search, recipe, task):
    _, tried, before, network = search(8, 4, RECIPES[recipe], task)
    assert tried == [8, 4]
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.backbone.training


def test_a_whole_step_is_tried_at_the_precision_of_training(search, monkeypatch):
    steps, dtypes = [], []
    make_optimizer = step.make_optimizer

    def watched(network, recipe):
        optimizer = make_optimizer(network, recipe)
        optimizer.register_step_post_hook(lambda *_: steps.append(dict(optimizer.state)))
        network.head.register_forward_hook(lambda m, x, y: dtypes.append(y.dtype))
        return optimizer

    monkeypatch.setattr(step, "make_optimizer", watched)
    search(4, 4, precision="bf16")
    [state] = steps
    assert dtypes == [torch.bfloat16]
    assert all({"exp_avg", "exp_avg_sq"} <= moments.keys() for moments in state.values())
