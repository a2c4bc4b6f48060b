"""A file as the messages that carry it to whoever saves it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from crane.hooks.v1 import ctld_service_pb2 as pb

PIECE_BYTES = 512 << 10
"""Of the file in one message; front ends get it as text in a frame of at most 4 MiB."""


async def backup_pieces(path: Path) -> AsyncIterator[pb.BackupStoreResponse]:
    """The whole file, its size first, its digest last.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    file = await asyncio.to_thread(path.open, "rb")
    try:
        yield pb.BackupStoreResponse(size_bytes=(await asyncio.to_thread(path.stat)).st_size)
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            digest.update(piece)
            yield pb.BackupStoreResponse(piece=piece)
        yield pb.BackupStoreResponse(sha256=digest.hexdigest())
    finally:
        file.close()
