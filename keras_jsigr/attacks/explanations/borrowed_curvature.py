"""Second derivatives for models that have none."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.attacks.transfer.member_logits import MemberLogits


class BorrowedCurvature:
    """Give a model's logits and gradients, with the second derivatives of another one.

    A ReLU network is piecewise linear: its gradient map is a constant around almost
    every input, so no gradient tells how to change the map. A smooth stand-in with the
    same weights does; what is attacked and judged stays the model itself.

    Args:
        model: A Keras model, a hardened model or a callable.
        surrogate: A smooth one of the same inputs and classes, such as
            `keras_jsigr.with_smooth_activations(model, "softplus")`.

    Raises:
        TypeError: If one of them cannot be called.

    Reference:
        arXiv 1710.10547 (softplus in the place of ReLU).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.explanations.borrowed_curvature import (
        ...     BorrowedCurvature,
        ... )
        >>> f = BorrowedCurvature(lambda x: 3.0 * x, lambda x: x**2)
        >>> x = tf.constant([[1.0, 5.0]])
        >>> with tf.GradientTape() as outer:
        ...     outer.watch(x)
        ...     with tf.GradientTape() as inner:
        ...         inner.watch(x)
        ...         z = f(x)
        ...     first = inner.gradient(z, x)
        >>> z.numpy().tolist(), first.numpy().tolist()
        ([[3.0, 15.0]], [[3.0, 3.0]])
        >>> outer.gradient(first, x).numpy().tolist()
        [[2.0, 2.0]]
    """

    def __init__(self, model: Any, surrogate: Any) -> None:
        self._model, self._surrogate = MemberLogits(model), MemberLogits(surrogate)

    def __call__(self, x: Any) -> tf.Tensor:
        """Return the model's logits, float32 `(B, C)`."""

        @tf.custom_gradient
        def logits(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                z = self._model(x)

            def pull(cotangent: tf.Tensor, variables: Any = None) -> Any:
                real = tape.gradient(z, x, cotangent)
                with tf.GradientTape(watch_accessed_variables=False) as smooth:
                    smooth.watch(x)
                    stand_in = self._surrogate(x)
                soft = smooth.gradient(stand_in, x, cotangent)
                gradient = soft + tf.stop_gradient(real - soft)
                if variables is None:
                    return gradient
                return gradient, tape.gradient(z, variables, cotangent)

            return z, pull

        return logits(tf.convert_to_tensor(x))
