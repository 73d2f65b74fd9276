"""Which inputs of a model are regularized."""

from __future__ import annotations

from typing import Any

import keras


def regularized_inputs(specs: Any, names: tuple[str, ...] | None) -> list[int]:
    """Find the positions of the inputs to regularize.

    Args:
        specs: A structure of named `tf.TensorSpec`.
        names: Names to choose; `None` chooses every float input.

    Returns:
        Positions among the flattened inputs.

    Raises:
        ValueError: If a name is unknown or names an integer input, or nothing is left.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.training.regularized_inputs import regularized_inputs
        >>> image = tf.TensorSpec((None, 2), tf.float32, "image")
        >>> token = tf.TensorSpec((None, 3), tf.int32, "token")
        >>> regularized_inputs([token, image], None)
        [1]
    """
    flat = keras.tree.flatten(specs)
    floats = {spec.name: i for i, spec in enumerate(flat) if spec.dtype.is_floating}
    if not floats:
        raise ValueError(
            f"No input can be regularized: got {[s.dtype.name for s in flat]} inputs, "
            "expected at least one of float dtype. Harden the part of the model that "
            "comes after the embedding."
        )
    if names is None:
        return list(floats.values())
    unknown = [name for name in names if name not in floats]
    if unknown or not names:
        raise ValueError(
            f"Inputs cannot be regularized: got {list(names)}, expected a choice of "
            f"the float inputs {list(floats)}."
        )
    return [floats[name] for name in names]


def check_connected(specs: Any, regularized: list[int], connected: list[int]) -> None:
    """Refuse to regularize an input that has no gradient.

    Args:
        specs: A structure of named `tf.TensorSpec`.
        regularized: Positions of the regularized inputs.
        connected: Those of them that the logits have a gradient for.

    Raises:
        ValueError: If they are not all.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.training.regularized_inputs import check_connected
        >>> check_connected(tf.TensorSpec((None, 2), name="image"), [0], [0])
    """
    names = [spec.name for spec in keras.tree.flatten(specs)]
    lost = [names[index] for index in regularized if index not in connected]
    if not lost:
        return
    left = [names[index] for index in connected]
    raise ValueError(
        f"Inputs cannot be regularized: got {lost}, for which the logits have no "
        "gradient, as for indices that an Embedding reads. "
        + (
            f"Choose the others with `harden(..., inputs={left})`."
            if left
            else "Choose others with `harden(..., inputs=[...])`, or harden the part "
            "of the model that comes after the embedding."
        )
    )
