"""What an error of TensorFlow says, in one line."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    r"""Return what TensorFlow says, without where Keras was when it said it.

    Args:
        error: Any, also one that a Keras layer passed on.

    Returns:
        The line, or the type of an error that says nothing.

    Example:
        >>> from keras_jsigr.checks.first_line import first_line
        >>> first_line(ValueError("Exception encountered when calling a.\n\nReason."))
        'Reason.'
    """
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception enc")]
    return told[0] if told else type(error).__name__
