"""Embeddings of single images, kept by what the images are: for images that come without a dataset.

An SQLite file per backbone. A transaction is whole or not there, whatever stops the process, and
several processes may read and add. Each row has its CRC-32: a damaged one counts as missing.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from medplus import lock
from medplus.errors import StoreError, explained

_TABLE = "CREATE TABLE IF NOT EXISTS embeddings (image BLOB PRIMARY KEY, embedding BLOB NOT NULL)"
_ASK = "SELECT embedding FROM embeddings WHERE image = ?"
_PAGE_BYTES = 1 << 14
"""Of a new file: holds several embeddings."""
_WAIT_S = 600.0


class KeptEmbeddings:
    """Embeddings by the digests of their images.

    Parameters
    ----------
    path : Path
        Of the SQLite file; it is made when something is first added.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = KeptEmbeddings(Path(folder) / "toy.sqlite")
    ...     kept.add([b"a"], np.array([[1.0, 2.0]], np.float32))
    ...     {image: row.tolist() for image, row in kept.find([b"a", b"b"]).items()}
    {b'a': [1.0, 2.0]}
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, images: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the embeddings that are there, float32, shape (dim,), by their images.

        Raises
        ------
        StoreError
            If the file is damaged, or cannot be read.
        """
        found: dict[bytes, np.ndarray] = {}
        if not self.path.exists():
            return found
        with self._connection() as connection:
            for image in images:
                for (kept,) in connection.execute(_ASK, (image,)):
                    if zlib.crc32(kept[:-4]) == int.from_bytes(kept[-4:], "little"):
                        found[image] = np.frombuffer(kept[:-4], "<f4")
        return found

    def add(self, images: Sequence[bytes], embeddings: np.ndarray) -> None:
        """Keep embeddings, float32, shape (n, dim): all of them, or none.

        Raises
        ------
        StoreError
            If the file is damaged, or cannot be written.
        """
        rows = [np.ascontiguousarray(row, "<f4").tobytes() for row in embeddings]
        sealed = [row + zlib.crc32(row).to_bytes(4, "little") for row in rows]
        with self._connection() as connection, connection:
            connection.executemany(
                "INSERT OR REPLACE INTO embeddings VALUES (?, ?)", zip(images, sealed, strict=True)
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from embedding the same images at the same time."""
        self._make_folder()
        place = self.path.with_name(f"{self.path.name}.lock")
        with lock.hold(place, f"the embeddings {self.path}", float("inf")):
            yield

    def _make_folder(self) -> None:
        folder = self.path.parent
        with explained(StoreError, f"{folder} cannot be made", "name another folder as store"):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self._make_folder()
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as connection:
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                connection.execute(_TABLE)
                yield connection
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self.path} cannot be read or written ({error}); free space, or name another "
                "folder as store"
            ) from None
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path} is damaged ({error}); delete it, and its images are embedded again"
            ) from None
