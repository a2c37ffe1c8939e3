"""Which device computes, and at which precision."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from medplus import device as devices
from medplus.device import (
    check_devices,
    compute_precision,
    describe_device,
    resolve_device,
    resolve_precision,
    resolve_training_precision,
)
from medplus.errors import UsageError

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


# --- device -----------------------------------------------------------------------------------


def test_auto_is_the_gpu_where_there_is_one(two_gpus):
    assert resolve_device("auto") == CUDA


def test_auto_is_the_cpu_elsewhere(no_gpu):
    assert resolve_device("auto") == resolve_device() == CPU


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_named_device_is_taken(two_gpus, name):
    assert resolve_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda:2", "cuda:99"])
def test_gpu_beyond_those_there_is_told(two_gpus, name):
    with pytest.raises(UsageError, match=f"'{name}' is not there: torch sees 2 CUDA devices"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_gpu_on_a_machine_without_one_is_told(no_gpu, name):
    with pytest.raises(UsageError, match=r"torch sees 0 CUDA devices.*--device cpu"):
        resolve_device(name)


@pytest.mark.parametrize(
    "name", ["", "gpu", "mps", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:0:1", "cuda:01",
             "cuda:²", "cuda:٣", "cpu:1", "cpu:2", "cpu:", "meta", " cpu"]
)  # fmt: skip
def test_unknown_device_is_a_usage_error(two_gpus, name):
    with pytest.raises(UsageError, match="unknown device"):
        resolve_device(name)


# --- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_named_precision_is_taken_on_a_cpu(name):
    assert resolve_precision(name, CPU) == name


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_named_precision_is_taken_on_a_gpu(name):
    assert resolve_precision(name, CUDA) == name


def test_fp16_on_a_cpu_is_a_usage_error():
    with pytest.raises(UsageError, match=r"fp16 needs a CUDA device.*bf16 or fp32"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize("name", ["", "float32", "tf32", "FP32", "int8"])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_unknown_precision_is_a_usage_error(name, device):
    with pytest.raises(UsageError, match=r"unknown precision.*auto, fp32, bf16 or fp16"):
        resolve_precision(name, device)


@pytest.mark.parametrize(
    ("capability", "expected"), [((6, 1), "fp32"), ((7, 0), "fp16"), ((9, 0), "fp16")]
)
def test_auto_on_a_gpu_is_fp16_from_volta_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_precision("auto", CUDA) == expected


def test_native_bf16_is_claimed_only_where_the_kernel_lists_it():
    from pathlib import Path

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("this kernel lists no flags")
    listed = bool({"avx512_bf16", "amx_bf16"} & set(flags))
    assert listed or not devices.cpu_has_native_bf16()


def test_auto_is_fp32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    assert resolve_precision("auto", CPU) == "fp32"


# --- precision of training --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "fp32"), ((7, 0), "fp32"), ((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")],
)
def test_auto_training_on_a_gpu_is_bf16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_training_precision("auto", CUDA) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
@pytest.mark.parametrize("resolve", [resolve_precision, resolve_training_precision])
def test_auto_on_a_cpu_is_bf16_where_it_is_native(monkeypatch, resolve, native, expected):
    monkeypatch.setattr(devices, "cpu_has_native_bf16", lambda: native)
    assert resolve("auto", CPU) == expected


def test_training_in_fp16_takes_a_gpu():
    assert resolve_training_precision("fp16", CUDA) == "fp16"
    with pytest.raises(UsageError, match=r"--precision fp16 needs a CUDA device"):
        resolve_training_precision("fp16", CPU)


# --- how many devices -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_one_device_may_be_any(two_gpus, name):
    check_devices(torch.device(name), 1)
    check_devices(CPU, 1)


def test_all_gpus_may_be_taken_and_no_more(two_gpus):
    check_devices(CUDA, 2)
    with pytest.raises(UsageError, match=r"--devices 3: torch sees 2 CUDA devices"):
        check_devices(CUDA, 3)


@pytest.mark.parametrize("index", [0, 1])
def test_several_gpus_are_not_one_named_gpu(two_gpus, index):
    with pytest.raises(UsageError, match=rf"--device cuda:{index}: .*CUDA_VISIBLE_DEVICES"):
        check_devices(torch.device("cuda", index), 2)


@pytest.mark.parametrize(("cores", "told"), [(2, 2), (None, 1)])
def test_processes_on_a_cpu_are_at_most_its_cores(monkeypatch, cores, told):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    check_devices(CPU, told)
    with pytest.raises(UsageError, match=rf"--devices {told + 1}: this machine has {told} CPU"):
        check_devices(CPU, told + 1)


# --- computing at a precision -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_products_are_computed_at_the_precision(precision, dtype):
    a = torch.rand(4, 4)
    with compute_precision(precision, CPU):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize("before", [True, False])
def test_fp32_is_true_fp32_inside_and_leaves_the_setting_as_it_was(before):
    setting = torch.backends.cuda.matmul.allow_tf32
    cudnn = torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before
    torch.backends.cudnn.allow_tf32 = before
    try:
        with pytest.raises(RuntimeError, match="inside"), compute_precision("fp32", CPU):
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
            raise RuntimeError("inside")
        assert torch.backends.cuda.matmul.allow_tf32 == before
        assert torch.backends.cudnn.allow_tf32 == before
    finally:
        torch.backends.cuda.matmul.allow_tf32 = setting
        torch.backends.cudnn.allow_tf32 = cudnn


def test_cpu_is_described_with_its_threads():
    assert f"({torch.get_num_threads()} threads)" in describe_device(CPU)


def test_gpu_is_described_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    assert describe_device(CUDA) == "NVIDIA H100"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp32_products_on_a_gpu_have_no_tf32_error():
    a = torch.rand(512, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    setting = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with compute_precision("fp32", CUDA):
            found = (a.float().cuda() @ a.float().cuda()).cpu().double()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = setting
    exact = a.float().double() @ a.float().double()
    assert (found - exact).norm() / exact.norm() < 1e-6  # TF32 errs by about 2e-4
