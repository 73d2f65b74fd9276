"""Goldens x modes: the models, one training run that is looked at, the final table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj

EXAMPLES, BATCH, CLASSES = 16, 8, 3
SPARSE = "sparse_categorical_crossentropy"


@dataclass(frozen=True)
class Golden:
    """A tiny classifier with its data.

    Attributes:
        name: Its row in the table.
        make: Builds the model anew, weights seeded.
        x: Inputs as `fit` takes them.
        y: Labels.
        from_logits: Whether the model returns logits.
        couples: Whether examples or steps influence each other in training mode
            (BatchNormalization, Dropout).
    """

    name: str
    make: Callable[[], keras.Model]
    x: Any
    y: np.ndarray
    from_logits: bool = True
    couples: bool = False

    @property
    def binary(self) -> bool:
        return self.y.max() == 1

    def loss(self, **kwargs: Any) -> keras.losses.Loss:
        kind = (
            keras.losses.BinaryCrossentropy
            if self.binary
            else keras.losses.SparseCategoricalCrossentropy
        )
        return kind(from_logits=self.from_logits, **kwargs)

    def harden(self, warmup: float = 0.2, **settings: Any) -> kj.JSIGRModel:
        """Harden with the settings of a recipe; the range is one of `harden`.

        Second derivatives are the same in most modes: one checks them for all.
        """
        keras.utils.set_random_seed(1)
        own = {"input_range": settings.pop("input_range", (0.0, 1.0)), "verbose": 0}
        config = kj.JSIGRConfig(epsilon=0.1, **{"check_gradients": False, **settings})
        return kj.harden(self.make(), recipe=config, warmup=warmup, **own)

    def compiled(
        self, optimizer: Any = None, harden: dict[str, Any] | None = None, **kwargs: Any
    ) -> kj.JSIGRModel:
        robust = self.harden(**(harden or {}))
        optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
        kwargs = {"loss": self.loss(), "metrics": ["accuracy"], **kwargs}
        robust.compile(optimizer, **kwargs)
        return robust

    def part(self, start: int, stop: int) -> tuple[Any, np.ndarray]:
        x = keras.tree.map_structure(lambda leaf: leaf[start:stop], self.x)
        return x, self.y[start:stop]


def cnn():
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


def resnet():
    inputs = x = layers.Input((8, 8, 3))
    for strides in (1, 2):
        short = layers.Conv2D(4, 1, strides, use_bias=False)(x)
        x = layers.Conv2D(4, 3, strides, padding="same", use_bias=False)(x)
        x = layers.Activation("silu")(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(4, 1)(x))
        x = layers.Activation("silu")(layers.Add()([x, short]))
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAvgPool2D()(x)))


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Dropout inside, and the softmax head is not its last attribute."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.head = layers.Dense(CLASSES, activation="softmax")
        self.flatten = layers.Flatten()
        self.hidden = layers.Dense(units, activation="gelu")
        self.dropout = layers.Dropout(0.3)

    def call(self, inputs, training=None):
        hidden = self.hidden(self.flatten(inputs))
        return self.head(self.dropout(hidden, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 1), "float32"))
    return model


def mlp():
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation=kj.Swish()),
            layers.Dense(CLASSES),
        ]
    )


def attention():
    inputs = layers.Input((5, 4))
    x = layers.LayerNormalization()(inputs)
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 3)(x, x)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def softmax_layer():
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, activation=kj.Swish()),
            layers.Flatten(),
            layers.Dense(CLASSES),
            layers.Softmax(),
        ]
    )


def sigmoid():
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="tanh"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def two_inputs():
    image = layers.Input((8, 8, 1), name="image")
    tokens = layers.Input((4,), dtype="int32", name="tokens")
    seen = layers.Flatten()(layers.Conv2D(4, 3, strides=2, activation="silu")(image))
    read = layers.Flatten()(layers.Embedding(7, 3)(tokens))
    joined = layers.Dense(8, activation="silu")(layers.Concatenate()([seen, read]))
    return keras.Model({"image": image, "tokens": tokens}, layers.Dense(CLASSES)(joined))


def _goldens() -> dict[str, Golden]:
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.uniform(0.0, 1.0, (EXAMPLES, *shape)).astype("float32")

    grey, colour, rows, series = (
        floats(8, 8, 1),
        floats(8, 8, 3),
        floats(6),
        floats(5, 4),
    )
    y = np.arange(EXAMPLES) % CLASSES
    both = {"image": grey, "tokens": rng.integers(0, 7, (EXAMPLES, 4)).astype("int32")}
    goldens = [
        Golden("cnn", cnn, grey, y),
        Golden("resnet", resnet, colour, y, couples=True),
        Golden("subclassed", subclassed, grey, y, from_logits=False, couples=True),
        Golden("mlp", mlp, rows, y),
        Golden("attention", attention, series, y),
        Golden("softmax_layer", softmax_layer, grey, y, from_logits=False),
        Golden("sigmoid", sigmoid, rows, np.arange(EXAMPLES) % 2, from_logits=False),
        Golden("two_inputs", two_inputs, both, y),
    ]
    return {golden.name: golden for golden in goldens}


GOLDENS = _goldens()
# Two whose many layers take as long to trace as all others together, and two that have
# nothing that those left have not: the quick tests are of the others.
SLOW = ("resnet", "attention", "cnn", "mlp")


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in GOLDENS
    ]
)
def golden(request):
    """Every golden, or those of `@pytest.mark.parametrize("golden", ..., indirect)`.

    Nothing may write into the arrays that it was given.
    """
    found = GOLDENS[request.param]
    before = keras.tree.map_structure(np.copy, found.x)
    yield found
    keras.tree.map_structure(np.testing.assert_array_equal, found.x, before)


@pytest.fixture
def train():
    """Train a compiled golden and look at everything that must hold in any mode."""

    def run(golden: Golden, robust: kj.JSIGRModel, *data: Any, **kwargs: Any) -> Any:
        before = robust.base.get_weights()
        data = data or (golden.x, golden.y)
        if "batch_size" not in kwargs and isinstance(data[0], (np.ndarray, dict)):
            kwargs["batch_size"] = BATCH
        history = robust.fit(
            *data,
            validation_data=golden.part(0, BATCH),
            **{"epochs": 1, "shuffle": False, "verbose": 0, **kwargs},
        ).history
        for name in ("loss", "task_loss", "jacobian_penalty", "selective_penalty"):
            assert np.isfinite(history[name]).all(), name
        assert history["jacobian_penalty"][-1] > 0
        own = {"val_task_loss", "val_map_hits"}
        assert not [k for k in history if k in own or re.match("val_.*_penalty", k)]
        after = robust.base.get_weights()
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(np.isfinite(w).all() for w in after)
        units = 1 if golden.binary else CLASSES
        predictions = robust.predict(golden.x, batch_size=EXAMPLES, verbose=0)
        assert predictions.shape == (EXAMPLES, units)
        assert np.isfinite(predictions).all()
        return history

    return run


@pytest.fixture
def assert_same_weights():
    """Compare two models, moving statistics included."""

    def check(a: keras.Model, b: keras.Model, atol: float = 1e-6) -> None:
        differ = {
            weight.path: (one, two)
            for weight, one, two in zip(a.weights, a.get_weights(), b.get_weights(), strict=True)
            if one.shape != two.shape or not np.allclose(one, two, 1e-5, atol)
        }
        assert not differ, differ

    return check


@pytest.fixture(scope="session")
def _references() -> dict[str, kj.JSIGRModel]:
    return {}


@pytest.fixture
def reference(golden, train, _references) -> kj.JSIGRModel:
    """The golden after one epoch in graph mode, for other modes to compare with."""
    if golden.name not in _references:
        robust = golden.compiled(harden={"check_gradients": True})
        train(golden, robust)
        _references[golden.name] = robust
    return _references[golden.name]


@pytest.fixture
def two_devices() -> tf.distribute.Strategy:
    """Two logical devices.

    Without collective operations: their keys are counted per strategy, so those of two
    strategies in one process collide.
    """
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def pytest_terminal_summary(terminalreporter) -> None:
    """Print which golden passed in which mode."""
    cells: dict[str, dict[str, str]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in terminalreporter.stats.get(outcome, []):
            match = re.fullmatch(
                r".*tests/conformance/\w+\.py::test_(\w+)\[(\w+)\]",
                getattr(report, "nodeid", ""),
            )
            if match and match[2] in GOLDENS:
                word = "pass" if outcome == "passed" else outcome.upper()
                cells.setdefault(match[1], {})[match[2]] = word
    if not cells:
        return
    width = max(len(mode) for mode in cells) + 2
    columns = [max(len(name), 6) for name in GOLDENS]
    terminalreporter.section("conformance cells: modes x models")

    def line(first: str, words: list[str]) -> None:
        row = [f"{w:>{n}}" for w, n in zip(words, columns, strict=True)]
        terminalreporter.write_line(f"{first:<{width}}" + "  ".join(row))

    line("", list(GOLDENS))
    for mode, row in cells.items():
        line(mode, [row.get(name, "-") for name in GOLDENS])
    passed = sum(word == "pass" for row in cells.values() for word in row.values())
    total = sum(map(len, cells.values()))
    terminalreporter.write_line(f"{passed} of {total} cells pass")
