"""The range or unit of every input, and of every column of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_jsigr.core import arguments
from keras_jsigr.core.inputs import probe_batch
from keras_jsigr.core.keras_compat import all_layers, layer_calls
from keras_jsigr.core.variables import stateless


@dataclass(frozen=True)
class InputScale:
    """Ends (or `None`), unit and zero of an input, or of each of its columns."""

    low: Any
    high: Any
    unit: Any
    center: Any
    # Whether radii are counted in units, not in those of the data.
    share_of_unit: bool = True

    @property
    def ends(self) -> tuple[Any, Any]:
        """Both ends, as arrays that broadcast; the largest numbers for no ends."""
        # No infinities: they are errors under `tf.debugging.enable_check_numerics`.
        largest = np.finfo(np.float32).max
        ends = (-largest, self.low), (largest, self.high)
        low, high = (np.float32(none if end is None else end) for none, end in ends)
        return low, high

    @property
    def probe_range(self) -> tuple[Any, Any]:
        """Where to draw inputs for trying a model."""
        if self.low is None:
            middle, unit = np.asarray(self.center), np.asarray(self.unit)
            return middle - unit, middle + unit
        return np.asarray(self.low), np.asarray(self.high)


_SAVED = "scales of the inputs"
# Of all inputs alike: one pair of numbers; else the scale of each input by its name.
Scales = tuple[float, float] | dict[str, InputScale]


def input_scales(given: Any, base: keras.Model, specs: Any) -> Scales:
    """Check `input_range`, and measure it where it is `"standardized"`."""
    floats = [s for s in keras.tree.flatten(specs) if s.dtype.is_floating]
    if isinstance(given, Mapping) and _SAVED in given:  # names may differ in a file
        pairs = zip(floats, given[_SAVED], strict=True)
        return {s.name: InputScale(**each) for s, each in pairs if each is not None}
    if isinstance(given, Mapping) and all(isinstance(each, InputScale) for each in given.values()):
        return dict(given)
    if isinstance(given, str):
        if given != "standardized":
            raise ValueError(
                f"Unknown `input_range`: got {given!r}, expected (low, high), one "
                "pair for each input or column, or 'standardized'."
            )
        return _measured(base, specs)
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - {spec.name for spec in floats})
        if unknown:
            raise ValueError(
                f"`input_range` names no inputs of the model: got {unknown}, expected "
                f"among {[spec.name for spec in floats]}."
            )
        named = dict(given)
    elif (
        not floats
        or not isinstance(given, list | tuple)
        or (len(given) == 2 and not any(np.ndim(end) for end in given))
    ):
        return arguments.interval("input_range", given)
    elif len(floats) == 1:
        named = {floats[0].name: given}
    else:
        if len(given) != len(floats):
            raise ValueError(
                f"`input_range` has one pair for every input: got {len(given)}, "
                f"expected {len(floats)}, for {[spec.name for spec in floats]}."
            )
        named = {s.name: pair for s, pair in zip(floats, given, strict=True)}
    return {s.name: _scale(s, named[s.name]) for s in floats if s.name in named}


def _scale(spec: Any, pair: Any) -> InputScale:
    try:
        low, high = (np.asarray(end, np.float64) for end in pair)
        width = np.broadcast_to(high - low, (spec.shape[-1] or 1,))
    except (TypeError, ValueError):
        width = np.zeros(1)
    if not (np.isfinite(width).all() and (width > 0).all()):
        raise ValueError(
            f"`input_range` does not fit `{spec.name}`: got {pair!r}, expected a low "
            f"and a higher end, numbers or {spec.shape[-1]} of each. A column that is "
            "constant needs a width too."
        )
    return InputScale(low.tolist(), high.tolist(), (high - low).tolist(), low.tolist())


def _measured(base: keras.Model, specs: Any) -> dict[str, InputScale]:
    """Read mean and deviation of each input from the Normalization that reads it."""
    flat = keras.tree.flatten(specs)
    probe = keras.tree.flatten(probe_batch(base, specs))
    found: dict[str, InputScale] = {}

    def look(layer: Any, call: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        for spec, x in zip(flat, probe, strict=True):
            if spec.dtype.is_floating and np.array_equal(inputs, x):
                if layer.mean is None:
                    raise ValueError(
                        f"`{layer.name}` has not been adapted: call "
                        "`layer.adapt(data)` before `harden`."
                    )
                mean = np.asarray(layer.mean, np.float64)
                std = np.sqrt(np.asarray(layer.variance, np.float64))
                std = np.where(std > 0.0, std, 1.0)
                column = (-1,) if mean.size > 1 else ()
                center, unit = mean.reshape(column), std.reshape(column)
                found[spec.name] = InputScale(None, None, unit.tolist(), center.tolist())
        return call(inputs, *args, **kwargs)

    layers = [
        layer
        for layer in all_layers(base)
        if isinstance(layer, keras.layers.Normalization) and not layer.invert
    ]
    with stateless(), layer_calls(layers, look):
        base(keras.tree.pack_sequence_as(specs, probe), training=False)
    if not found:
        raise ValueError(
            "input_range='standardized' reads the units from adapted "
            "keras.layers.Normalization layers: got none that reads an input itself. "
            "Pass the range of each column, input_range={name: (low, high)}."
        )
    return found


def scales_of(scales: Scales, names: Sequence[str]) -> list[InputScale]:
    """Return the scale of each of the named inputs."""
    if not isinstance(scales, dict):
        low, high = scales
        scale = InputScale(low, high, high - low, low, share_of_unit=False)
        return [scale for _ in names]
    missing = [name for name in names if name not in scales]
    if missing:
        raise ValueError(
            f"`input_range` has no range for the regularized inputs {missing}: got "
            f"those of {sorted(scales)}. Add them, or choose with inputs=[...]."
        )
    return [scales[name] for name in names]


def probe_range(scales: Scales) -> Any:
    """Return where to draw inputs, for `probe_batch`."""
    if not isinstance(scales, dict):
        return scales
    return {name: scale.probe_range for name, scale in scales.items()}


def config_of(scales: Scales, specs: Any) -> Any:
    """Return what `input_scales` takes again, JSON-ready."""
    if not isinstance(scales, dict):
        return list(scales)
    floats = [s for s in keras.tree.flatten(specs) if s.dtype.is_floating]
    found = [scales.get(spec.name) for spec in floats]
    return {_SAVED: [each and asdict(each) for each in found]}
