"""The official files of MedMNIST+: fetched, checked, or listed for machines without internet."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from threading import Event, Lock
from typing import Literal
from urllib.parse import quote

import httpx

from medplus._version import __version__
from medplus.datasets import catalog
from medplus.errors import DownloadError, MedplusError, UsageError, explained
from medplus.naming import counted
from medplus.progress import Progress, silent
from medplus.remotefile import PATIENT, Outcome, Patience, RemoteFile, fetch, remote_size

State = Literal["official", "missing", "other"]
_HEADROOM = 64 * 2**20
"""Bytes that stay free on the disk."""


@dataclass(frozen=True)
class OfficialFile(RemoteFile):
    """An official file of MedMNIST+ and its place under a data root.

    Attributes
    ----------
    dataset : str
    size : int
        In pixels.
    most_bytes : int
        What its arrays take uncompressed; the file is not noticeably larger.
    n_bytes : int or None
        Its size, where a server has told it.
    outcome : {"present", "downloaded", "resumed"} or None
        What became of it; None if nobody has asked for it, or it could not be had.
    error : str
        Why it could not be had.
    """

    dataset: str
    size: int
    most_bytes: int
    n_bytes: int | None = None
    outcome: Outcome | None = None
    error: str = ""

    @property
    def bytes_left(self) -> int:
        """How much is still to come, at most."""
        return max((self.n_bytes or self.most_bytes) - self.n_arrived, 0)

    def state(self) -> State:
        """Tell whether the file is there, and the official one; reads all of it.

        Raises
        ------
        DownloadError
            If it cannot be read.
        """
        with explained(DownloadError, f"{self.path} cannot be read"):
            if not self.path.exists():
                return "missing"
            return "official" if self.is_right(self.path) else "other"


def official_files(
    datasets: Iterable[str],
    sizes: Iterable[int],
    data_root: str | Path = "data",
    base_url: str | None = None,
) -> list[OfficialFile]:
    """Return the files of datasets and sizes, as `medmnist.INFO` names them.

    Parameters
    ----------
    datasets : iterable of str
        MedMNIST flags.
    sizes : iterable of int
        28, 64, 128, 224.
    data_root : path
        Where they are to lie.
    base_url : str, optional
        A mirror: the folder, by http or https, that holds files of the official names.

    Raises
    ------
    UsageError
        If a dataset, size or address is not known.
    """
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise UsageError(f"--base-url {base_url}: an address begins with http:// or https://")
    found = []
    for name, size in product(dict.fromkeys(datasets), dict.fromkeys(sizes)):
        info = catalog.info(name)
        file = info.filename(size)
        url = info.url[size] if base_url is None else f"{base_url.rstrip('/')}/{quote(file)}"
        most = sum(info.n_samples.values()) * (size**2 * info.channels + info.n_labels)
        found.append(OfficialFile(url, Path(data_root) / file, info.md5[size], name, size, most))
    return found


def missing_files(files: Sequence[OfficialFile]) -> list[OfficialFile]:
    """Return the files that are not there."""
    return [file for file in files if not file.path.exists()]


def ask_sizes(files: Sequence[OfficialFile], patience: Patience = PATIENT) -> list[OfficialFile]:
    """Return the files with their sizes, as far as the server tells them."""
    with _client(patience) as client, ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda file: replace(file, n_bytes=remote_size(client, file)), files))


def check_room(files: Sequence[OfficialFile], data_root: Path) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    DownloadError
        If the folder cannot be made or has too little room.
    """
    with explained(DownloadError, f"{data_root} cannot be used"):
        data_root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(data_root).free
    needed = sum(file.bytes_left for file in files) + _HEADROOM
    if needed > free:
        raise DownloadError(
            f"{data_root} has {free / 1e9:.1f} GB left, and {needed / 1e9:.1f} GB are needed; make "
            "room, name another folder with --data-root, or fetch fewer or smaller files"
        )


def download(
    files: Sequence[OfficialFile],
    *,
    workers: int = 3,
    patience: Patience = PATIENT,
    progress: Progress = silent,
) -> list[OfficialFile]:
    """Fetch files, several at once; those that are there are left as they are.

    A file that cannot be had does not keep the others. Processes that fetch the same file wait for
    one another. After an interrupt the next call goes on with what has arrived.

    Parameters
    ----------
    files : sequence of OfficialFile
    workers : int
        Files at once.
    patience : Patience
    progress : Progress

    Returns
    -------
    list of OfficialFile
        In the order of `files`, with what became of each.
    """
    total = sum(file.n_bytes or file.most_bytes for file in missing_files(files))
    stop, lock = Event(), Lock()
    with _client(patience) as client, progress(counted(len(files), "file"), total, "B") as advance:

        def tell(n: int) -> None:
            with lock:
                advance(n)

        def one(file: OfficialFile) -> OfficialFile:
            try:
                return replace(file, outcome=fetch(client, file, patience, tell, stop))
            except MedplusError as error:
                return replace(file, error=str(error))

        with ThreadPoolExecutor(max_workers=workers) as pool:
            try:
                return list(pool.map(one, files))
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _client(patience: Patience) -> httpx.Client:
    """Return a client that follows redirects and honours the proxy variables."""
    return httpx.Client(
        follow_redirects=True,
        timeout=httpx.Timeout(patience.stall_s, pool=None),
        headers={"user-agent": f"medplus/{__version__}"},
    )
