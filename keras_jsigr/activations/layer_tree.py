"""Walk through a model as its attributes hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def is_graph(layer: Any) -> bool:
    """Tell whether `clone_model` can copy it layer by layer."""
    functional = isinstance(layer, keras.Model) and hasattr(layer, "operations")
    return functional or isinstance(layer, keras.Sequential)


def children(layer: keras.Layer) -> list[keras.Layer]:
    """List the layers that a layer holds directly, in the order of attribute names."""
    if is_graph(layer):
        return list(layer.layers)
    values = [value for _, value in sorted(vars(layer).items())]
    leaves = [leaf for value in values for leaf in _leaves(value)]
    return [leaf for leaf in leaves if isinstance(leaf, keras.Layer)]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def walk(layer: keras.Layer, seen: set[int] | None = None) -> Iterator[keras.Layer]:
    """Visit a layer and all that it holds, each once, parents first."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    for child in children(layer):
        yield from walk(child, seen)
