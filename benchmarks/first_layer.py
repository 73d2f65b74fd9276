"""Time of the gradient of a first convolution for the image, ours beside TensorFlow's.

    python benchmarks/first_layer.py          # what is missing in the results
    python benchmarks/first_layer.py --quick  # a smoke run
    python benchmarks/first_layer.py --table  # the table of what is there

The layer itself, the gradient of TensorFlow and ours run in one process and in turn:
ratios are medians over rounds. So do whole training steps with either gradient, beside
those of plain training. What oneDNN is to the figures shows `TF_ENABLE_ONEDNN_OPTS=0`
with `--out FILE`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from judges.markdown import markdown_table
from judges.options import complete, parser_of
from judges.steps_in_turn import step_of, steps_in_turn
from judges.store import Store
from networks import nets
from networks.architectures import NETS

import keras_jsigr as kj
from keras_jsigr.core import quick_convolution
from keras_jsigr.core.quick_convolution import quick
from keras_jsigr.core.tensorflow_private import onednn_is_used

# Examples, side and channels of the image; side and number of the filters; stride.
CASES: dict[str, tuple[int, int, int, int, int, int, str]] = {
    "reference": (128, 28, 1, 4, 16, 2, "VALID"),
    "Madry CNN": (128, 28, 1, 5, 32, 1, "SAME"),
    "ResNet-20": (128, 28, 1, 3, 16, 1, "SAME"),
    "CIFAR, 3 x 3": (128, 32, 3, 3, 16, 1, "SAME"),
    "CIFAR, 3 x 3, wide": (128, 32, 3, 3, 64, 1, "SAME"),
    "Tiny ImageNet, 3 x 3 of stride 2": (128, 64, 3, 3, 16, 2, "VALID"),
    "ImageNet, 7 x 7 of stride 2": (32, 224, 3, 7, 64, 2, "SAME"),
    "ImageNet, 16 x 16 patches": (32, 224, 3, 16, 192, 16, "VALID"),
}
ROUNDS, INNER = 20, 3
# Networks whose steps are timed: architecture, activation, side and channels.
STEPS: dict[str, tuple[str, str, int, int]] = {
    "reference": ("reference", "silu", 28, 1),
    "Madry CNN": ("madry", "relu", 28, 1),
    "colour": ("colour", "silu", 64, 3),
    "ResNet-20": ("resnet20", "relu", 28, 1),
}
BATCH = 128


def runs_of(case: str) -> dict[str, Callable[[], None]]:
    """Return what runs the layer, and its gradient both ways."""
    examples, side, channels, taps, filters, stride, padding = CASES[case]
    x = tf.random.stateless_normal((examples, side, side, channels), (0, 1))
    w = tf.random.stateless_normal((taps, taps, channels, filters), (0, 2))
    g = tf.random.stateless_normal(tf.nn.conv2d(x, w, stride, padding).shape, (0, 3))

    def gradient(convolution: Any, x: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = convolution(x, w, stride, padding)
        return tape.gradient(z, x, g)

    def run(body: Callable[..., tf.Tensor], *given: tf.Tensor) -> Callable[[], None]:
        signature = [tf.TensorSpec([None, *value.shape[1:]]) for value in given]
        function = tf.function(body, input_signature=signature, autograph=False)
        return partial(function.get_concrete_function(), *given)

    return {
        "layer": run(lambda x: tf.nn.convolution(x, w, stride, padding), x),
        "TensorFlow": run(partial(gradient, tf.nn.convolution), x, g),
        "ours": run(partial(gradient, quick(tf.nn.convolution)), x, g),
    }


def steps_of(case: str) -> dict[str, Callable[[], None]]:
    """Return a plain step, and others with the gradient of TensorFlow and with ours."""
    architecture, activation, side, channels = STEPS[case]
    draw = np.random.default_rng(0)
    x = draw.random((BATCH, side, side, channels), "float32")
    y = draw.integers(0, 10, BATCH)
    off = {"jacobian_weight": 0.0, "selective_weight": 0.0}
    pgd = off | {"adversary": nets.adversary("PGD-7", nets.EPSILON)}

    def step(settings: dict[str, Any] | None, ours: bool) -> Callable[[], None]:
        net = NETS[architecture](activation, 0)
        if settings is not None:
            net = kj.harden(net, verbose=0, probe=False, **settings)
        asked = {"return_value": ours and onednn_is_used()}
        with mock.patch.object(quick_convolution, "onednn_is_used", **asked):
            taken = step_of(net, x, y)
            taken()  # Traced for batches of this size, too.
        return taken

    return {
        "plain": step(None, True),
        "defaults, TensorFlow": step({}, False),
        "defaults, ours": step({}, True),
        "PGD-7 training, TensorFlow": step(pgd, False),
        "PGD-7 training, ours": step(pgd, True),
    }


def times(
    made: Callable[[str], dict[str, Callable[[], None]]],
    case: str,
    turns: tuple[int, int],
) -> dict[str, Any]:
    """Make what is timed, and time it in turn."""
    return steps_in_turn(made(case), *turns)


def print_steps(store: Store) -> None:
    """Print times as multiples of a plain step."""
    cells = [(case, store.cells.get(f"steps/{case}")) for case in STEPS]
    known = [(case, cell) for case, cell in cells if cell is not None]
    names = ["defaults", "PGD-7 training"]
    kinds = [f"{name}, {whose}" for name in names for whose in ("TensorFlow", "ours")]
    rows = [
        [case, *(f"{cell[kind]['ratio']:.2f}" for kind in kinds)]
        for case, cell in known
    ]
    print(markdown_table(["step", *kinds], rows))


def print_table(store: Store) -> None:
    """Print times as multiples of the layer's."""
    rows = []
    for case in CASES:
        cell = store.cells.get(case)
        if cell is None:
            continue
        theirs, ours = cell["TensorFlow"]["ratio"], cell["ours"]["ratio"]
        layer = f"{cell['layer']['milliseconds']:.3g} ms"
        rows.append(
            [case, layer, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}"]
        )
    headings = [
        "first layer",
        "itself",
        "gradient, TensorFlow",
        "gradient, ours",
        "gain",
    ]
    print(markdown_table(headings, rows))


def main() -> None:
    options = parse_options()
    store = Store(options.out, {"oneDNN": onednn_is_used()})
    turns = (1, 1) if options.quick else (ROUNDS, INNER)
    if not options.table:
        for case, of in CASES.items():
            store.measure(case, partial(times, runs_of, case, turns), [of])
        for case, of in STEPS.items():
            taken = partial(times, steps_of, case, turns)
            store.measure(f"steps/{case}", taken, [of])
    print_table(store)
    print_steps(store)


def parse_options() -> argparse.Namespace:
    options = parser_of(__doc__).parse_args()
    complete(options, "first_layer")
    return options


if __name__ == "__main__":
    main()
