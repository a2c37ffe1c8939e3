"""Packages are imported elsewhere, so that whatever they do is only told."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import time; time.sleep(60)", "takes more than 2 s"),
    ],
)
def test_package_that_fails_is_told_and_the_others_are_tried_all_the_same(
    fake: Fake, code: str, said: str
) -> None:
    fake("faulty", code)

    found = try_packages(["json", "faulty", "email"], patience_s=2.0)

    assert said in found["faulty"].error
    assert (found["json"].error, found["email"].error) == ("", "")


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


def test_what_timm_would_import_and_medplus_does_without_leaves_nothing(
    fake: Fake, tmp_path: Path
) -> None:
    fake("wandb", f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'left').touch()")
    fake("timm", "try: import wandb\nexcept ImportError: pass")

    assert try_packages(["timm"])["timm"].error == ""
    assert not (tmp_path / "left").exists()
