"""The content keys of a whole array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.saliency.batched import BatchedExplainer
from keras_jsigr.saliency.content_keys import content_keys

_BATCHES = BatchedExplainer(lambda x, y: content_keys(x), 1024)


def hashed_examples(x: Any) -> npt.NDArray[np.int64]:
    """Hash every example of an array, batch by batch, see `content_keys`.

    Args:
        x: Data `(N, *S)`.

    Returns:
        Int64 `(N,)`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.hashed_examples import hashed_examples
        >>> hashed_examples(np.zeros((3, 2), "float32")).shape
        (3,)
    """
    return np.asarray(_BATCHES(x))
