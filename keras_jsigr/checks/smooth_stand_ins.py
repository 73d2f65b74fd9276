"""Smooth stand-ins for kinked layers, while finite differences are taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import keras

from keras_jsigr.core.layer_calls import Hook, layer_calls

_KINKED = {
    "relu", "relu6", "leaky_relu", "selu", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "hard_shrink", "soft_shrink", "threshold",
}  # fmt: skip
_layers = keras.layers
_RECTIFIERS = (_layers.ReLU, _layers.LeakyReLU, _layers.PReLU)
_POOLING = {
    _layers.MaxPooling1D: _layers.AveragePooling1D,
    _layers.MaxPooling2D: _layers.AveragePooling2D,
    _layers.MaxPooling3D: _layers.AveragePooling3D,
    _layers.GlobalMaxPooling1D: _layers.GlobalAveragePooling1D,
    _layers.GlobalMaxPooling2D: _layers.GlobalAveragePooling2D,
    _layers.GlobalMaxPooling3D: _layers.GlobalAveragePooling3D,
}


@contextmanager
def smooth_stand_ins(layers: list[keras.Layer]) -> Iterator[None]:
    """Let kinked layers compute something smooth of the same shape in the block.

    The Jacobian of a ReLU network jumps where a unit changes sides. However small the
    step of a finite difference, the jumps of a large network weigh as much in it as
    the derivative itself. Rectifiers and max pooling are known to be differentiated
    rightly; with SiLU and average pooling in their place the rest can be compared.

    Args:
        layers: Innermost layers, and those with `SpectralNormalization` around them.

    Yields:
        Nothing.

    Example:
        >>> import keras
        >>> from keras_jsigr.checks.smooth_stand_ins import smooth_stand_ins
        >>> dense = keras.layers.Dense(1, activation="relu")
        >>> with smooth_stand_ins([dense]):
        ...     print(dense.activation.__name__)
        silu
        >>> dense.activation.__name__
        'relu'
    """
    with ExitStack() as stack:
        for layer in layers:
            stand_in = _stand_in(layer)
            if stand_in is not None:
                stack.enter_context(layer_calls([layer], stand_in))
                continue
            for name in ("activation", "recurrent_activation"):
                function = getattr(layer, name, None)
                if getattr(function, "__name__", "") in _KINKED:
                    setattr(layer, name, keras.activations.silu)
                    stack.callback(setattr, layer, name, function)
        yield


def _stand_in(layer: keras.Layer) -> Hook | None:
    if isinstance(layer, _RECTIFIERS):
        return lambda layer, call, inputs: keras.activations.silu(inputs)
    if isinstance(layer, _layers.SpectralNormalization):
        # It scales its kernel, then applies it: the gradient is of the second alone.
        return lambda layer, call, inputs, training=False: layer.layer(inputs)
    for kinked, smooth in _POOLING.items():
        if isinstance(layer, kinked):
            pooling = smooth.from_config(layer.get_config())
            # In the dtype it meets.
            return lambda layer, call, inputs: pooling.call(inputs)
    return None
