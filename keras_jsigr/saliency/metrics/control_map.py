"""Maps that know nothing of the model: what any explanation has to beat."""

from __future__ import annotations

from typing import Any, Literal, get_args

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.saliency.layout import Layout, map_axes, resolve_layout

ControlName = Literal["random", "intensity"]
CONTROLS: tuple[str, ...] = get_args(ControlName)


def control_map(
    x: Any,
    kind: ControlName = "random",
    *,
    seed: Any = (0, 0),
    low: float = 0.0,
    layout: Layout | None = None,
) -> tf.Tensor:
    """Make a map from the image alone, or from nothing.

    - `"random"`: uniform numbers, other ones for each example;
    - `"intensity"`: `sum_channels |x - low|`, bright pixels first. Where the object is
      bright on black, this alone is a strong map.

    Args:
        x: Data `(B, *S)`.
        kind: `"random"` or `"intensity"`.
        seed: Int32 `(2,)`, of the random maps.
        low: The value of a dark pixel.
        layout: What the axes mean, see `resolve_layout`.

    Returns:
        Float32 `(B, *map_shape)`.

    Raises:
        ValueError: If `kind` is unknown or the shape fits no layout.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.control_map import control_map
        >>> control_map(tf.constant([[[1.0, 2.0], [0.0, 0.5]]]), "intensity").numpy()
        array([[3. , 0.5]], dtype=float32)
    """
    advice = "Use 'random' for the level of chance."
    settings.choice("kind", kind, CONTROLS, advice=advice)
    x = tf.cast(x, tf.float32)
    kept = 1 + map_axes(resolve_layout(tuple(x.shape[1:]), layout))
    if kind == "random":
        return tf.random.stateless_uniform(tf.shape(x)[:kept], seed)
    return tf.reduce_sum(tf.abs(x - low), axis=list(range(kept, x.shape.rank)))
