"""Write files so that nobody ever meets half of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file under a temporary name; flush it to disk and rename it at the end.

    A reader meets the old file or the new one and nothing between; an error in between
    leaves the old one.

    Args:
        path: Where to; parent folders are made.

    Yields:
        The file to write into.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_jsigr.core.write_whole import whole_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     with whole_file(path) as file:
        ...         _ = file.write(b"text")
        ...     path.read_bytes()
        b'text'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write bytes to a file, see `whole_file`.

    Args:
        path: Where to; parent folders are made.
        data: The contents.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_jsigr.core.write_whole import write_whole
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "new", "a.txt")
        ...     write_whole(path, b"text")
        ...     path.read_bytes()
        b'text'
    """
    with whole_file(path) as file:
        file.write(data)
