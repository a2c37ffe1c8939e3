"""The first Ctrl-C or SIGTERM asks; what others made of signals stays, and comes back.

What a training makes of them is in `test_trainer.py`.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest

from medplus.training.interrupts import deferred_interrupts


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
        with deferred_interrupts() as asked:
            os.kill(os.getpid(), number)
            assert asked == [number]
            if error:
                raise error
    except (KeyboardInterrupt, RuntimeError) as raised:
        assert type(raised) is error
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup does, and the processes of several devices
    with deferred_interrupts() as asked:
        os.kill(os.getpid(), number)
        assert not asked
    assert signal.getsignal(number) is signal.SIG_IGN


def test_other_threads_leave_the_handlers_alone(number):
    before, seen = signal.getsignal(number), []

    def train():
        with deferred_interrupts() as asked:
            seen.append((signal.getsignal(number), bool(asked)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
