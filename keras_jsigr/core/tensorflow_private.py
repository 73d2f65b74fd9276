"""The only file that touches names TensorFlow does not export, each with its reason."""

from __future__ import annotations

from functools import cache


@cache
def onednn_is_used() -> bool:
    """Tell whether TensorFlow computes with oneDNN.

    It depends on the build, the processor and `TF_ENABLE_ONEDNN_OPTS`; the one function
    that knows is private. Where it is missing the answer is no.

    Example:
        >>> from keras_jsigr.core.tensorflow_private import onednn_is_used
        >>> isinstance(onednn_is_used(), bool)
        True
    """
    try:
        from tensorflow.python.util import _pywrap_util_port

        return bool(_pywrap_util_port.IsMklEnabled())
    except (ImportError, AttributeError):
        return False
