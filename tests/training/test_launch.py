"""Where training runs, what it promises of determinism, and how failures come back."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from medplus.errors import RunError
from medplus.training import launch as launch_module
from medplus.training.launch import known_exception, launch, make_fabric, reproducible

CPU = torch.device("cpu")


# --- fabric -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_fabric_computes_at_the_precision_and_keeps_weights_in_fp32(precision, dtype):
    fabric = make_fabric(CPU, 1, precision)
    layer = fabric.setup_module(nn.Linear(4, 2))
    with fabric.autocast():
        assert (torch.rand(2, 4) @ torch.rand(4, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(torch.rand(1, 4)).dtype == torch.float32  # Fabric gives results back in fp32


def test_fabric_is_told_which_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(launch_module, "Fabric", lambda **options: asked.append(options))
    make_fabric(torch.device("cuda", 1), 1, "fp16")
    make_fabric(torch.device("cuda"), 1, "bf16")
    make_fabric(torch.device("cuda"), 2, "fp32")
    found = [(o["accelerator"], o["devices"], o["precision"], o["strategy"]) for o in asked]
    assert found == [
        ("cuda", [1], "16-mixed", "auto"),
        ("cuda", [0], "bf16-mixed", "auto"),
        ("cuda", 2, "32-true", "ddp_spawn"),
    ]


# --- launching ----------------------------------------------------------------------------------


def test_one_process_is_this_one():
    fabric = make_fabric(CPU, 1, "fp32")
    found = launch(fabric, lambda fabric, *more: (os.getpid(), fabric.world_size, more), 3, "x")
    assert found == (os.getpid(), 1, (3, "x"))


def test_several_processes_may_be_started_from_any_thread():
    class Several:
        strategy = SimpleNamespace(launcher=object())

        def launch(self, call):
            return SimpleNamespace(value=3)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(launch, Several(), print).result() == 3


@contextmanager
def as_before():
    """Undo what a call does to its process, which here is this one."""
    handler, level = signal.getsignal(signal.SIGINT), logging.getLogger("medplus").level
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        logging.getLogger("medplus").setLevel(level)


class Processes:
    """Stands in for a Fabric of several processes: `behave(call)` is what becomes of them."""

    def __init__(self, behave):
        self.strategy = SimpleNamespace(launcher="some")
        self.launch = behave


def test_result_of_several_processes_is_the_first_ones():
    fabric = Processes(lambda call: call(SimpleNamespace(rank=0)))
    with as_before():
        assert launch(fabric, lambda f, x: (f.rank, x), "x") == (0, "x")


def test_expected_error_in_a_process_comes_back_whole_whichever_process_is_told_of_first():
    def behave(call):
        with pytest.raises(RunError):
            call(SimpleNamespace())  # the process that fails; the other one loses its peer
        raise ProcessRaisedException("Traceback…\nRuntimeError: Connection closed by peer", 1, 7)

    def fail(fabric):
        raise RunError("the disk is full")

    with as_before(), pytest.raises(RunError, match=r"^the disk is full$") as error:
        launch(Processes(behave), fail)
    assert type(error.value) is RunError


def test_unexpected_error_in_a_process_is_told_by_its_last_line():
    def behave(call):
        raise ProcessRaisedException("\n-- Process 1 …\nTraceback…\nValueError: so it is\n", 1, 7)

    with pytest.raises(RunError, match=r"^a training process failed: ValueError: so it is$"):
        launch(Processes(behave), print)


def test_process_that_dies_is_told_with_a_remedy():
    def behave(call):
        raise ProcessExitedException(
            "process 1 terminated with signal SIGKILL", 1, 7, exit_code=-9, signal_name="SIGKILL"
        )

    with pytest.raises(RunError) as error:
        launch(Processes(behave), print)
    assert "signal SIGKILL" in str(error.value)
    assert "smaller --batch-size" in str(error.value)


def test_interrupt_of_a_process_is_an_interrupt():
    def interrupt(fabric):
        raise KeyboardInterrupt

    with as_before(), pytest.raises(KeyboardInterrupt):
        launch(Processes(lambda call: call(SimpleNamespace())), interrupt)


def test_processes_leave_ctrl_c_to_their_parent():
    def handlers(fabric):
        return signal.getsignal(signal.SIGINT)

    with as_before():
        assert launch(Processes(lambda call: call(None)), handlers) == signal.SIG_IGN


def test_processes_show_the_warnings_that_their_parent_shows():
    def behave(call):
        with warnings.catch_warnings():
            warnings.resetwarnings()  # as a new process has them
            return call(None)

    with warnings.catch_warnings(), as_before():
        warnings.filterwarnings("ignore", module="torch")
        found = launch(Processes(behave), lambda fabric: warnings.filters[0])
        assert found == warnings.filters[0]


def test_sigterm_is_ctrl_c_while_processes_run_and_itself_again_afterwards():
    def behave(call):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt):
            launch(Processes(behave), print)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


# --- determinism --------------------------------------------------------------------------------


def state():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_rng_state().sum(),
        np.random.get_state()[1].sum(),  # noqa: NPY002
    )


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_settings_hold_within_and_are_as_before_afterwards(deterministic, precision):
    before = state()
    with (
        pytest.raises(RuntimeError, match="inside"),
        reproducible(deterministic, nn.Identity(), precision, CPU) as said,
    ):
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.backends.cudnn.benchmark != deterministic
        assert said.startswith("yes" if deterministic else "no")
        if precision == "fp32":
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        torch.rand(3)
        np.random.seed(1)  # noqa: NPY002
        raise RuntimeError("inside")
    assert state() == before


@pytest.fixture(scope="module")
def sam():
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    return nn.Sequential(VisionTransformerSAM(img_size=32, embed_dim=8, depth=1, num_heads=2))


def test_the_known_exception_is_named_where_it_applies(sam, monkeypatch):
    assert known_exception(nn.Sequential(nn.Conv2d(3, 3, 1))) == ""
    assert "SAM" in known_exception(sam)
    with reproducible(True, sam, "fp32", CPU) as on_cpu:
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    with reproducible(True, sam, "fp32", torch.device("cuda")) as on_gpu:
        pass
    with reproducible(False, sam, "fp32", torch.device("cuda")) as fast:
        pass
    assert on_cpu == "yes"
    assert on_gpu == f"yes, but for {known_exception(sam)}"
    assert fast == "no: the fastest algorithms"
