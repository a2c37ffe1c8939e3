"""The first Ctrl-C or SIGTERM asks; what others made of signals stays, and comes back.

What a training makes of them is in `test_trainer.py`.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest

from medplus.interrupts import Interrupts


@pytest.fixture(autouse=True, params=[signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def number(request):
    """A signal, with a handler of the test's own, so that one too many does not end the tests."""
    before = signal.signal(request.param, lambda number, frame: None)
    yield request.param
    signal.signal(request.param, before)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_first_signal_only_asks_and_handlers_come_back(number, error):
    before = signal.getsignal(number)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), number)
            assert interrupts.requested
            if error:
                raise error
    except (KeyboardInterrupt, RuntimeError) as raised:
        assert type(raised) is error
    assert signal.getsignal(number) is before


def test_one_that_does_not_wait_interrupts_at_once_and_is_remembered(number):
    interrupts = Interrupts(wait=False)
    with interrupts:
        interrupts.grant()
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                interrupts.grant()


def test_a_signal_that_is_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup does, and the processes of several devices
    with Interrupts() as interrupts:
        os.kill(os.getpid(), number)
        assert not interrupts.requested
    assert signal.getsignal(number) is signal.SIG_IGN


def test_other_threads_leave_the_handlers_alone(number):
    before, seen = signal.getsignal(number), []

    def train():
        with Interrupts() as interrupts:
            seen.append((signal.getsignal(number), interrupts.requested))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
