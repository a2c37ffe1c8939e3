"""The first Ctrl-C or SIGTERM asks, the second one interrupts, and others' handlers come back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from medplus.training.interrupts import Interrupts

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])


@pytest.fixture(autouse=True)
def handlers():
    """Handlers of the test's own, so that a signal too many does not end the tests."""
    received = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@BOTH
def test_first_signal_only_asks(handlers, number):
    with Interrupts() as interrupts:
        assert not interrupts.requested
        send(number)
        assert interrupts.requested
    assert handlers == []


@BOTH
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_second_signal_interrupts_at_once(handlers, first, number):
    with Interrupts() as interrupts:
        send(first)
        with pytest.raises(KeyboardInterrupt):
            send(number)
        assert interrupts.requested
    assert handlers == []


@BOTH
def test_handlers_come_back(handlers, number):
    before = signal.getsignal(number)
    with Interrupts():
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before
    send(number)
    assert handlers == [number]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_handlers_come_back_after_an_error(error):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(error), Interrupts():
        raise error
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@BOTH
def test_a_signal_that_is_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup does, and the processes of several devices
    with Interrupts() as interrupts:
        send(number)
        assert not interrupts.requested
    assert signal.getsignal(number) is signal.SIG_IGN


def test_the_default_handlers_come_back():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Interrupts():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_leave_the_handlers_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def train():
        with Interrupts() as interrupts:
            seen.append((signal.getsignal(signal.SIGINT), interrupts.requested))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
    assert signal.getsignal(signal.SIGINT) is before
