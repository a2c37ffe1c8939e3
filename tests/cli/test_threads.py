"""On a busy machine compute threads sleep while they wait; a choice of the user's stands."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from medplus.cli.threads import share_busy_machine

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's run queue")


@pytest.fixture(autouse=True)
def no_policy(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


def _spin() -> None:
    while True:
        pass


@LINUX
def test_threads_sleep_while_another_process_computes():
    others = [multiprocessing.get_context("spawn").Process(target=_spin) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(200):  # a look may fall between their time slices
            share_busy_machine()
            if "OMP_WAIT_POLICY" in os.environ:
                break
    finally:
        for other in others:
            other.kill()
            other.join()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_a_choice_in_the_environment_stands(name, monkeypatch):
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    share_busy_machine()
    assert dict(os.environ) == before


def test_an_idle_machine_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self: "0.00 0.01 0.05 1/99 4711\n")
    share_busy_machine()
    assert "OMP_WAIT_POLICY" not in os.environ
