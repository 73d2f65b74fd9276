"""A 64-bit key of what an example contains, computed inside TensorFlow."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Odd constants of SplitMix64 and MurmurHash3; any change makes old caches worthless.
_SPREAD = np.array(0x9E3779B97F4A7C15, np.uint64).view(np.int64)
_MIX = np.array(0xBF58476D1CE4E5B9, np.uint64).view(np.int64)
_FINAL = np.array(0x94D049BB133111EB, np.uint64).view(np.int64)


def content_keys(x: Any) -> tf.Tensor:
    """Hash every example to 64 bits, so that it can be found again by its content.

    Every value is cast to float32, its bits are spread over 64, multiplied by an odd
    pseudo-random constant of its position and mixed; the sum over the positions is
    mixed again. All of it is integer arithmetic modulo 2^64, so the key depends on
    nothing but the example: not on its batch, the device, or the compiler. -0.0 counts
    as 0.0. Not a cryptographic hash; among N examples two keys collide with
    probability about N^2 / 2^65 (1e-10 for 60,000).

    Args:
        x: Data `(B, *S)` of any real dtype, S fixed.

    Returns:
        Int64 `(B,)`.

    Raises:
        ValueError: If the shape of an example is not fixed.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.content_keys import content_keys
        >>> a, b, c = content_keys(np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]]))
        >>> bool(a == b), bool(a == c)
        (True, False)
    """
    x = tf.convert_to_tensor(x)
    if x.shape.rank is None or None in x.shape[1:] or x.shape.rank < 1:
        raise ValueError(
            f"Got data of shape {x.shape}, expected (B, ...) with fixed lengths after "
            "the batch axis. Resize or pad the data before looking it up."
        )
    length = int(np.prod(x.shape[1:], dtype=np.int64))
    rows = tf.reshape(tf.cast(x, tf.float32), (-1, length))
    bits = tf.bitcast(rows, tf.int32)
    # On the bits: `x + 0.0` would be optimized away in graphs.
    bits = tf.where(bits == np.iinfo(np.int32).min, tf.zeros_like(bits), bits)
    spread = _shift_mix(tf.cast(bits, tf.int64) * _SPREAD, 32)
    mixed = _shift_mix(spread * _position_constants(length), 29)
    total = tf.reduce_sum(mixed, axis=-1)
    return _shift_mix(_shift_mix(_shift_mix(total, 30) * _MIX, 27) * _FINAL, 31)


def _shift_mix(h: tf.Tensor, bits: int) -> tf.Tensor:
    """`h ^ (h >>> bits)`; TensorFlow's signed shift would copy the sign."""
    unsigned = tf.bitcast(h, tf.uint64)
    shifted = tf.bitwise.right_shift(unsigned, tf.constant(bits, tf.uint64))
    return tf.bitcast(tf.bitwise.bitwise_xor(unsigned, shifted), tf.int64)


@lru_cache(maxsize=8)
def _position_constants(length: int) -> npt.NDArray[np.int64]:
    """The first `length` numbers of the SplitMix64 stream from 0, made odd."""
    state = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) | np.uint64(1)
    return z.view(np.int64)
