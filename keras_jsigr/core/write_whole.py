"""Write files so that nobody ever meets half of one."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to disk and rename it.

    A reader meets the old file or the new one and nothing between.

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
