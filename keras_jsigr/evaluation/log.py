"""What happened during an evaluation: times, crashes, words for the reader."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

# An evaluation that is done before needs no progress report.
_LONG = 20.0


class Log:
    """Time the parts of an evaluation and note crashes instead of passing them on.

    Attributes:
        seconds: Wall time per part.
        errors: Parts that crashed, in words.

    Args:
        verbose: 1 prints a line per finished piece, 0 none, `"auto"` once the
            evaluation has taken longer than 20 seconds.

    Example:
        >>> from keras_jsigr.evaluation.log import Log
        >>> log = Log(0)
        >>> with log.part("curve"):
        ...     raise ValueError("no gradient")
        >>> log.errors
        ['curve: ValueError: no gradient']
    """

    def __init__(self, verbose: Literal["auto", 0, 1]) -> None:
        self.seconds: dict[str, float] = {}
        self.errors: list[str] = []
        self._verbose = verbose
        self._start = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run a part: time it, and note an error of it instead of raising it.

        Args:
            name: What it is called.

        Yields:
            Nothing.
        """
        start = time.perf_counter()
        self.say(f"{name} ...")
        try:
            yield
        except Exception as error:
            self.errors.append(f"{name}: {in_words(error)}")
            self.say(self.errors[-1])
        finally:
            self.seconds[name] = time.perf_counter() - start

    def say(self, line: str) -> None:
        """Print a line if the user wants to hear of the progress.

        Args:
            line: The text.
        """
        long = self.total() > _LONG
        if self._verbose == 1 or (self._verbose == "auto" and long):
            print(line, flush=True)

    def total(self) -> float:
        """Return the seconds since the beginning."""
        return time.perf_counter() - self._start


def in_words(error: BaseException) -> str:
    r"""Say what an error is in one line.

    Args:
        error: Any exception.

    Returns:
        Its kind and the beginning of its message.

    Example:
        >>> from keras_jsigr.evaluation.log import in_words
        >>> in_words(ValueError("first line\nsecond"))
        'ValueError: first line'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = f": {lines[0][:300]}" if lines else ""
    return f"{type(error).__name__}{message}"
