"""A hub that limits the rate of requests is believed at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any


@contextmanager
def no_waiting_for_rate_limits() -> Iterator[None]:
    """Let the hub's client fail at once, in the block, where the hub answers 429.

    By itself it asks again for most of a minute, or for as long as the hub says (minutes), without
    a word. Faults that pass, such as 503, it still tries again; and what the cache has is used.
    """
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError

    def refuse(response: Any) -> None:
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise HfHubHTTPError("too many requests", response=response)

    hooks = get_session().event_hooks["response"]
    hooks.append(refuse)
    try:
        yield
    finally:
        hooks.remove(refuse)
