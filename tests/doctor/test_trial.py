"""Packages are imported elsewhere, so that whatever they do is only told."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from medplus.doctor.trial import try_packages

Fake = Callable[[str, str], None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return a function that writes a module which the child finds first."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)

    return write


def test_what_can_be_imported_has_no_error_and_what_prints_does_not_disturb(fake: Fake) -> None:
    fake("talkative", "print('{\"package\": 1}'); import os; os.write(1, b'noise')")

    found = try_packages(["talkative", "json"])

    assert {name: trial.error for name, trial in found.items()} == {"talkative": "", "json": ""}


def test_error_of_an_import_is_told_with_its_type(fake: Fake) -> None:
    fake("faulty", "import not_there_at_all")

    error = try_packages(["faulty"])["faulty"].error

    assert error == "ModuleNotFoundError: No module named 'not_there_at_all'"


def test_package_that_crashes_is_named_and_the_others_are_tried_all_the_same(fake: Fake) -> None:
    fake("crashing", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

    found = try_packages(["json", "crashing", "email"])

    assert signal.SIGSEGV.name in found["crashing"].error
    assert (found["json"].error, found["email"].error) == ("", "")


def test_package_that_hangs_is_given_up(fake: Fake) -> None:
    fake("hanging", "import time; time.sleep(60)")

    found = try_packages(["json", "hanging"], patience_s=1.0)

    assert "takes more than 1 s" in found["hanging"].error
    assert found["json"].error == ""


def test_broken_torch_is_told_once(fake: Fake) -> None:
    fake("torch", "raise ImportError('libcudart.so.13 is missing')")

    found = try_packages(["torch", "torchvision", "timm", "json"])

    assert set(found) == {"torch", "json"}
    assert "libcudart.so.13" in found["torch"].error


def test_packages_of_this_installation_tell_of_the_hardware() -> None:
    found = try_packages(["pynvml", "torch", "faiss"])

    import torch

    assert found["torch"].facts["cuda"] == torch.version.cuda
    assert len(found["torch"].facts["gpus"]) == torch.cuda.device_count()
    assert isinstance(found["faiss"].facts["gpus"], int)
    assert set(found["pynvml"].facts) == {"driver", "cuda", "gpus"}
