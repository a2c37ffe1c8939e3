"""Ctrl-C and SIGTERM: granted between two steps, or at once but never forgotten."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, a signal sets `requested`; and interrupts at once, unless it is to wait.

    SIGTERM counts as Ctrl-C: clusters send it before they take a node away.

    Parameters
    ----------
    wait : bool
        Let the first signal only set `requested`, so that what is saved is whole; the second one
        interrupts. Otherwise each interrupts, and `requested` tells of one that was lost in what
        ignores or replaces exceptions, as libraries do that are being imported.
    """

    def __init__(self, wait: bool = True) -> None:
        self.requested = False
        self._wait = wait
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._request)
        return self

    def grant(self) -> None:
        """Raise KeyboardInterrupt if it is requested."""
        if self.requested:
            raise KeyboardInterrupt

    def _request(self, number: int, frame: FrameType | None) -> None:
        before, self.requested = self.requested, True
        if before or not self._wait:
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
