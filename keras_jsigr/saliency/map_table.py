"""A cache of saliency maps as a layer: saved with the model, read inside the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.saliency.cache import PerturbationCache
from keras_jsigr.saliency.content_keys import content_keys
from keras_jsigr.saliency.interpolate import interpolate
from keras_jsigr.saliency.mask_bank import MaskBank


@keras.saving.register_keras_serializable(package="keras_jsigr")
class MapTable(keras.layers.Layer):
    """Look up the saliency maps of the examples in a batch, by content.

    `S = sum_k c_k hat_k` with the coefficients c of the row whose key equals
    `content_keys(x)`. Keys `(N,)` int64 and coefficients `(N, K)` uint8 are weights
    that do not train: they travel inside a `.keras` file and under `tf.distribute`,
    and the dtype policy of the model leaves them alone.

    Args:
        size: The number of rows, N.
        bank: The mask bank or its configuration.
        **kwargs: `name` of the layer.

    Raises:
        ValueError: If `size` is not positive.

    Call arguments:
        x: Data `(B, *S)` as it was when the cache was built, any real dtype.

    Call returns:
        The maps, float32 `(B, *map_shape)` in [0, 1], zero where there is none, and
        whether there is one, bool `(B,)`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.cache import PerturbationCache
        >>> from keras_jsigr.saliency.map_table import MapTable
        >>> x = np.array([[1.0, 2.0], [3.0, 1.0]], "float32")
        >>> table = MapTable.from_cache(
        ...     PerturbationCache.build(lambda x: x, x, baseline="zero", verbose=0)
        ... )
        >>> maps, found = table(x)
        >>> found.numpy().tolist()
        [True, True]
    """

    def __init__(
        self, size: int, bank: MaskBank | Mapping[str, Any], **kwargs: Any
    ) -> None:
        kwargs = {**kwargs, "dtype": "float32", "trainable": False, "autocast": False}
        super().__init__(**kwargs)
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"Got size {size!r}, expected the positive number of rows. "
                "Make the table by `MapTable.from_cache`."
            )
        self.size = size
        self.bank = bank if isinstance(bank, MaskBank) else MaskBank.from_config(bank)

    @classmethod
    def from_cache(cls, cache: PerturbationCache, **kwargs: Any) -> MapTable:
        """Make a table that holds a cache.

        Args:
            cache: The cache.
            **kwargs: `name` of the layer.

        Returns:
            The built layer.
        """
        table = cls(cache.size, cache.bank, **kwargs)
        table.build((None, *cache.bank.input_shape))
        table.assign(cache)
        return table

    def build(self, input_shape: Any = None) -> None:
        """Make the weights.

        Args:
            input_shape: Not needed; the bank knows.
        """
        del input_shape
        fixed = {"initializer": "zeros", "trainable": False, "autocast": False}
        shape = (self.size, self.bank.size)
        self.keys = self.add_weight((self.size,), dtype="int64", name="keys", **fixed)
        self.codes = self.add_weight(shape, dtype="uint8", name="codes", **fixed)
        self.built = True

    def assign(self, cache: PerturbationCache) -> None:
        """Replace the contents in place; compiled functions see them without retrace.

        Args:
            cache: A cache of as many examples, with the same bank.

        Raises:
            ValueError: If the numbers of rows or the banks differ.
        """
        if cache.size != self.size or cache.bank != self.bank:
            raise ValueError(
                f"Got a cache of {cache.size} rows with {cache.bank}, expected "
                f"{self.size} rows with {self.bank}. Build it from the same data with "
                "the same settings, or make a new table."
            )
        self.keys.assign(cache.keys)
        self.codes.assign(cache.codes)

    def call(self, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Look up maps; see the class.

        Args:
            x: Data `(B, *S)`.

        Returns:
            Float32 `(B, *map_shape)` and bool `(B,)`.
        """
        wanted, keys = content_keys(x), tf.convert_to_tensor(self.keys)
        rows = tf.minimum(tf.searchsorted(keys, wanted), self.size - 1)
        found = tf.equal(tf.gather(keys, rows), wanted)
        codes = tf.cast(tf.gather(tf.convert_to_tensor(self.codes), rows), tf.float32)
        codes = tf.where(found[:, tf.newaxis], codes, tf.zeros_like(codes))
        return interpolate(self.bank, codes / 255.0), found

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same table, without its contents."""
        config = super().get_config()
        return {**config, "size": self.size, "bank": self.bank.get_config()}
