"""What driver, torch and faiss tell is put together; facts as the trials return them."""

from __future__ import annotations

import pytest

from medplus.doctor.hardware import examine_hardware
from medplus.doctor.trial import Trial

GPU = "NVIDIA H100"


def examined(
    driver: str | None = "550.54", serves: str | None = "12.4", there: int = 1,
    built: str | None = "12.1", usable: int = 1, fault: str = "", faiss: int = 1,
    **environment: str,
) -> list[tuple[str, str, str]]:  # fmt: skip
    nvml = {"driver": driver, "cuda": serves, "gpus": [GPU] * there}
    torch = {"cuda": built, "gpus": [GPU] * usable, "fault": fault}
    trials = {"pynvml": Trial(nvml), "torch": Trial(torch), "faiss": Trial({"gpus": faiss})}
    found = examine_hardware(trials, environment)
    return [(f.mark, f.subject, f"{f.text} | {f.remedy}") for f in found if f.mark != "ok"]


def test_machine_whose_parts_fit_is_fine() -> None:
    assert examined() == []


def test_machine_without_gpu_is_fine() -> None:
    assert examined(driver=None, serves=None, there=0, usable=0, faiss=0) == []


@pytest.mark.parametrize(
    ("change", "mark", "subject", "said"),
    [
        ({"usable": 0, "built": None}, "problem", "torch", "built for the CPU alone"),
        ({"usable": 0, "built": "13.0"}, "problem", "torch", "serves CUDA 12.4 at most"),
        ({"usable": 0}, "problem", "torch", "sees no GPU"),
        ({"fault": "no kernel image"}, "problem", "torch", "cannot compute there: no kernel image"),
        ({"faiss": 0}, "warning", "faiss", "through torch"),
        ({"there": 0, "usable": 0}, "warning", "driver 550.54", "knows of no GPU"),
        ({"usable": 0, "CUDA_VISIBLE_DEVICES": ""}, "warning", "torch", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_does_not_fit_is_told(change: dict, mark: str, subject: str, said: str) -> None:
    [(found_mark, found_subject, text)] = examined(**change)

    assert (found_mark, found_subject) == (mark, subject)
    assert said in text


def test_build_of_the_same_major_version_as_the_driver_serves_is_not_blamed() -> None:
    [(_, _, text)] = examined(usable=0, built="12.8", fault="initialization error")

    assert "at most" not in text
    assert "initialization error" in text


def test_torch_that_cannot_be_imported_leaves_the_driver_to_be_told() -> None:
    nvml = Trial({"driver": "550.54", "cuda": "12.4", "gpus": [GPU, GPU]})
    trials = {"pynvml": nvml, "torch": Trial(error="broken"), "faiss": Trial(error="broken")}

    [found] = examine_hardware(trials, {})

    assert (found.mark, found.subject) == ("ok", f"2 × {GPU}")
