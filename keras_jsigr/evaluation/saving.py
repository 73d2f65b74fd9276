"""Write reports to a file of the format that its suffix names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_jsigr.core.write_whole import write_whole

if TYPE_CHECKING:
    from keras_jsigr.evaluation.report import Report


def _html(reports: Sequence[Report]) -> bytes:
    from keras_jsigr.evaluation.page.html import html_page

    return html_page(reports).encode()


def _markdown(reports: Sequence[Report]) -> bytes:
    from keras_jsigr.evaluation.page.markdown import markdown_page

    return markdown_page(reports).encode()


def _png(reports: Sequence[Report]) -> bytes:
    from keras_jsigr.evaluation.page.figure import png_figure

    return png_figure(reports)


# Imported when asked for: a report can be kept as JSON without any page maker.
_FORMATS: dict[str, Callable[[Sequence[Report]], bytes]] = {
    ".html": _html,
    ".md": _markdown,
    ".png": _png,
}


def save_reports(
    reports: Sequence[Report],
    path: str | os.PathLike[str],
    document: Callable[[], dict[str, Any]],
) -> None:
    """Write reports in the format of the suffix of `path`, whole or not at all.

    Args:
        reports: At least one.
        path: Ends in `.json`, `.html`, `.md` or `.png`; parent folders are made.
        document: Gives what goes into a JSON file.

    Raises:
        ValueError: If the suffix is none of these.
        ImportError: If a format needs a package that is not installed.

    Example:
        >>> import os, tempfile
        >>> from keras_jsigr.evaluation.saving import save_reports
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "a.json")
        ...     save_reports([], path, lambda: {"schema": 1})
        ...     os.listdir(folder)
        ['a.json']
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".json":
        # Half a character, as in names of files that are no Unicode, has no bytes: what
        # Python writes for it, \udc80, is how JSON escapes it.
        data = json_text(document()).encode(errors="backslashreplace")
    elif suffix in _FORMATS:
        data = _FORMATS[suffix](reports)
    else:
        raise ValueError(
            f"No format for '{path}': got suffix {path.suffix!r}, expected one of "
            f"{['.json', *_FORMATS]}. Rename the file."
        )
    write_whole(path, data)


def json_text(document: Any) -> str:
    r"""Return strict JSON: an error instead of NaN and infinity.

    Args:
        document: JSON values.

    Returns:
        The text, indented.

    Raises:
        ValueError: If a number is not finite.

    Example:
        >>> from keras_jsigr.evaluation.saving import json_text
        >>> json_text({})
        '{}\n'
    """
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
