"""A folder that is written completely or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = "saved_model.pb"


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a target that holds something, or something other than an export.

    Args:
        path: The folder to write.
        overwrite: Whether an earlier export may be replaced.

    Raises:
        ValueError: If the path is a file, or a folder that may not be replaced.

    Example:
        >>> from pathlib import Path
        >>> from keras_jsigr.serving.folder import check_target
        >>> check_target(Path("no/such/folder"), overwrite=False)
    """
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"Cannot export to '{path}': got a file, expected a folder. "
            "Choose another path."
        )
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"Cannot export to '{path}': the folder exists and is not empty. Choose "
            "the next version's folder, or replace this one with `overwrite=True`."
        )
    if not (path / _MARK).is_file():
        raise ValueError(
            f"Cannot replace '{path}': got a folder without '{_MARK}', expected an "
            "earlier export. Move its contents away, or choose another path."
        )


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Write a folder under another name and give it its own when it is complete.

    Whoever looks at `path`, a model server for instance, sees the old folder, none or
    the new one, never half of one: an old one is moved away before the new one takes
    its name. Who is killed between the two leaves it as `.<name>.<tag>.old`. An error
    inside the block leaves everything as it was.

    Args:
        path: The folder to write; missing parents are made.

    Yields:
        The new, empty folder to write into.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_jsigr.serving.folder import replaced_folder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with replaced_folder(Path(root, "out")) as folder:
        ...         _ = (folder / "a.txt").write_text("done")
        ...     Path(root, "out", "a.txt").read_text()
        'done'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tag = uuid.uuid4().hex[:12]
    # Beside the target, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{tag}.tmp")
    old = path.with_name(f".{path.name}.{tag}.old")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
