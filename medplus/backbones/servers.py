"""The hub and other servers of weights: whether they can be asked, and what they answer."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from medplus.errors import BackboneError, causes, first_line

LOCAL_PREFIX = "local-dir:"
"""What timm puts before the path of a model in a folder."""
_CONNECT_TIMEOUT_S = 3.0
_LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


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


def go_offline_if_unreachable() -> None:
    """Use the hub's cache alone when the hub cannot be reached.

    The hub's client retries an unreachable host for most of a minute; on a compute node without
    internet one quick connection attempt decides. Behind a proxy, the client finds its own way.
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not _is_reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True


def check_reachable(url: str) -> None:
    """Raise at once where a file that no cache has cannot be fetched either.

    torch.hub waits for minutes for a host behind a firewall, and knows no offline mode; the hub's
    is meant for all.

    Raises
    ------
    OSError
    """
    if _asked_to_stay_offline() or not _is_reachable(url):
        raise OSError(f"{urlsplit(url).hostname} cannot be reached")


def _is_reachable(url: str) -> bool:
    if getproxies():
        return True
    address = urlsplit(url)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _asked_to_stay_offline() -> bool:
    words = ("1", "ON", "YES", "TRUE")
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in words for name in names)


def snapshot_files(repository: str, revision: str) -> list[Path] | None:
    """Return what the hub's cache has of a repository: the note of the snapshot, and its files."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    note = folder / "refs" / revision
    try:
        snapshot = folder / "snapshots" / note.read_text("utf-8").strip()
        files = sorted(path for path in snapshot.rglob("*") if path.is_file())
    except (OSError, ValueError):
        return None
    return [note, snapshot, *files] if files else None


def from_hub(tag: str, repository: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Return the first of several files that a repository of the hub, or its cache, has.

    Raises
    ------
    BackboneError
        If it cannot be had; `tag` is what needs it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    go_offline_if_unreachable()
    fault: Exception = FileNotFoundError(repository)
    with no_waiting_for_rate_limits():
        for file in files:
            try:
                return Path(hf_hub_download(repository, file, revision=revision))
            except EntryNotFoundError as error:
                fault = error
            except Exception as error:
                raise fetch_error(tag, error) from error
    raise fetch_error(tag, fault) from fault


def fetch_error(tag: str, error: BaseException) -> BackboneError:
    """Return the error for pretrained weights that cannot be fetched, with the ways out."""
    if tag.startswith(LOCAL_PREFIX):
        return BackboneError(
            f"the model in {tag.removeprefix(LOCAL_PREFIX)} cannot be used "
            f"({type(error).__name__}: {first_line(error)[:120]}); medplus reads config.json and "
            "tensors, as timm.models.save_for_hf(…, safe_serialization=True) writes them"
        )
    gate = _gate(error)
    if gate is not None:
        return BackboneError(
            f"the weights of {tag} are behind a gate: ask for access at {gate}, then log in with "
            "hf auth login (or set HF_TOKEN), and say the same again"
        )
    cache = "TORCH_HOME" if tag.startswith("alexnet.") else "HF_HOME"
    return BackboneError(
        f"the pretrained weights of {tag} cannot be had ({_reason(error)}); fill the cache with "
        f"medplus backbones --fetch {tag} where there is internet ({cache} names its folder, which "
        "can be carried over), or name a folder that --fetch … --to DIR wrote with --weights DIR "
        "(or a file with --weights FILE), or use --weights none for a random network"
    )


def _gate(error: BaseException) -> str | None:
    """Return the page of the hub where access to a gated repository is asked for, if it is one."""
    from huggingface_hub.errors import GatedRepoError

    for cause in causes(error):
        if isinstance(cause, GatedRepoError):
            # …/org/name/resolve/main/file, or …/api/models/org/name
            address = str(cause.response.url)
            return address.partition("/resolve/")[0].replace("/api/models/", "/")
    return None


def _reason(error: BaseException) -> str:
    """Say why weights cannot be had: an answer of the server, a fault here, or no connection."""
    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        status = status or (getattr(cause, "code", None) if isinstance(cause, OSError) else None)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return "the hub answers 429: too many requests from this address for now"
        if isinstance(status, int) and status >= HTTPStatus.BAD_REQUEST:
            return f"the hub answers {status}"
        if isinstance(cause, OSError) and cause.errno in _LOCAL_FAULTS:
            return f"{cause.filename or 'the cache'}: {cause.strerror}"
    if not isinstance(error, OSError | ValueError):
        return f"{type(error).__name__}: {first_line(error)[:200]}"
    if _asked_to_stay_offline():
        return "they are not in the local cache, and HF_HUB_OFFLINE forbids to fetch them"
    return "they are not in the local cache, and the hub cannot be reached"
