"""A folder, as zarr reads it."""

from __future__ import annotations

from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest
from zarr.core.buffer import BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore


class FolderStore(LocalStore):
    """zarr's store in a folder, but each file is read by the thread that asks for it.

    `LocalStore` hands every read to another thread; where several threads read already, that
    costs as much as reading.
    """

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the content of a file, or None where there is none."""
        if byte_range is not None:
            return await super().get(key, prototype, byte_range)
        try:
            content = (self.root / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)
