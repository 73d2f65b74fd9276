"""The architectures of the benchmarks, untrained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

# Its name, or a function such as `keras_jsigr.Swish`.
Activation = str | Callable[[Any], Any]


def reference_net(activation: Activation, seed: int) -> keras.Model:
    """Build conv4x4-s2(16, 32) + fc100 with logits.

    Args:
        activation: Of the hidden layers.
        seed: Of the weights.

    Returns:
        The untrained network for 28 x 28 images of ten classes.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(16, 4, strides=2, padding="same", activation=activation),
            layers.Conv2D(32, 4, strides=2, padding="same", activation=activation),
            layers.Flatten(),
            layers.Dense(100, activation=activation),
            layers.Dense(10),
        ]
    )


def madry_cnn(activation: Activation, seed: int) -> keras.Model:
    """Build conv5x5(32)-pool-conv5x5(64)-pool-fc1024 with logits.

    Args:
        activation: Of the hidden layers.
        seed: Of the weights.

    Returns:
        The untrained network for 28 x 28 images of ten classes.

    Reference:
        arXiv 1706.06083, section 5 (MNIST).
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(32, 5, padding="same", activation=activation),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, padding="same", activation=activation),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1024, activation=activation),
            layers.Dense(10),
        ]
    )


def resnet20(
    activation: Activation,
    seed: int,
    shape: tuple[int, int, int] = (28, 28, 1),
    stem: int = 1,
) -> keras.Model:
    """Build the ResNet-20 of three stages (16, 32, 64) with batch normalization.

    Args:
        activation: Of all layers.
        seed: Of the weights.
        shape: Of the images.
        stem: Strides of the first convolution: 2 brings images of 64 x 64 to the sides
            that the network was made for, at a quarter of the operations.

    Returns:
        The untrained network for ten classes, with logits.

    Reference:
        arXiv 1512.03385, section 4.2 (shortcuts by 1 x 1 convolutions).
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers

    def convolution(x: Any, width: int, strides: int) -> Any:
        x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)
        # Keras' 0.99 remembers the start: a few hundred steps later it errs by far.
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input(shape, name="image")
    x = layers.Activation(activation)(convolution(inputs, 16, stem))
    for width in (16, 32, 64):
        for block in range(3):
            strides = 2 if width > 16 and block == 0 else 1
            inner = layers.Activation(activation)(convolution(x, width, strides))
            inner = convolution(inner, width, 1)
            if strides > 1:
                x = layers.Conv2D(width, 1, strides, use_bias=False)(x)
            x = layers.Activation(activation)(x + inner)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def colour_net(activation: Activation, seed: int) -> keras.Model:
    """Build conv3x3-s2(16, 32, 64) + fc100 with logits.

    Args:
        activation: Of the hidden layers.
        seed: Of the weights.

    Returns:
        The untrained network for 64 x 64 colour images of ten classes.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    convolutions = [
        layers.Conv2D(filters, 3, 2, "same", activation=activation)
        for filters in (16, 32, 64)
    ]
    dense = [layers.Dense(100, activation=activation), layers.Dense(10)]
    image = keras.Input((64, 64, 3), name="image")
    return keras.Sequential([image, *convolutions, layers.Flatten(), *dense])


NETS: dict[str, Callable[[Activation, int], keras.Model]] = {
    "reference": reference_net,
    "madry": madry_cnn,
    "resnet20": resnet20,
    "resnet20 colour": partial(resnet20, shape=(64, 64, 3), stem=2),
    "colour": colour_net,
}
