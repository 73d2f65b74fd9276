"""Accuracy under attack: what is reported, when, and what is refused."""

from itertools import pairwise

import keras
import numpy as np
import pytest

from keras_jsigr.attacks import PGD
from keras_jsigr.callbacks import RobustAccuracy


def linear(weights):
    """Two classes, logits `(0, w x + b)`, never trained: the optimum is known."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    model.set_weights([np.array([[0.0, weights]]), np.array([0.0, -weights / 2])])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


X = np.array([[0.0], [0.3], [0.45], [0.55], [0.7], [1.0]], "float32")

Y = np.array([0, 0, 0, 1, 0, 1])


def test_closed_form():
    # The boundary is at 0.5: 0.45 and 0.55 fall under 0.1, 0.7 was wrong before.
    model = linear(4.0)
    watch = RobustAccuracy(X, Y, epsilon=0.1)
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[watch]).history
    assert history["val_robust_accuracy"] == [0.5, 0.5]


def test_equals_attack_and_evaluate(data, plain, fit):
    x, y = data
    model = plain()
    history = fit(model, RobustAccuracy(x, y, epsilon=0.05, steps=3), epochs=1).history
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    x_adv = PGD(epsilon=0.05, steps=3, early_stop=True)(model, x, y)
    said = [model.predict(v, verbose=0).argmax(-1) == y for v in (x, x_adv)]
    assert history["val_robust_accuracy"] == [np.mean(said[0] & said[1])]


class Scripted(RobustAccuracy):
    """Says what a test wants it to say."""

    def __init__(self, values, **kwargs):
        super().__init__(X, Y, epsilon=0.1, **kwargs)
        self.values = iter(values)

    def measure(self, logs):
        return {self.name: next(self.values)}


def test_later_callbacks_see_it(tmp_path):
    path = tmp_path / "best.keras"
    best = keras.callbacks.ModelCheckpoint(
        path, monitor="val_robust_accuracy", mode="max", save_best_only=True
    )
    stop = keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", patience=2)
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    saved = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: saved.append(path.stat().st_mtime_ns)
    )
    model = linear(4.0)
    watch = Scripted([0.1, 0.4, 0.3, 0.2, 0.9])
    callbacks = [watch, best, stop, log, look]
    history = model.fit(X, Y, epochs=5, verbose=0, callbacks=callbacks).history
    assert history["val_robust_accuracy"] == [0.1, 0.4, 0.3, 0.2]
    assert [a == b for a, b in pairwise(saved)] == [0, 1, 1]
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header.split(",").index("val_robust_accuracy")
    assert len(rows) == 4


def test_last_figure_is_repeated_and_forgotten_in_the_next_training():
    watch = Scripted([0.1, 0.2, 0.3, 0.4], every=3, name="val_pgd")
    model = linear(4.0)
    history = model.fit(X, Y, epochs=6, verbose=0, callbacks=[watch]).history
    assert history["val_pgd"] == [0.1, 0.1, 0.2, 0.2, 0.2, 0.3]
    assert model.fit(X, Y, verbose=0, callbacks=[watch]).history["val_pgd"] == [0.4]


def test_nothing_is_traced_again(data, plain, fit):
    model, traces = plain(), []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: traces.append(model.get_layer("traced").traces)
    )
    fit(model, RobustAccuracy(*data, epsilon=0.1, steps=2), watch, epochs=3)
    assert len(set(traces)) == 1


def test_radius_and_range_of_the_hardened_model(data, hardened):
    x, y = data
    robust = hardened(input_range=(0.0, 255.0), epsilon=8.0)
    watch = RobustAccuracy(255.0 * x, y, steps=2)
    robust.fit(255.0 * x, y, verbose=0, callbacks=[watch])
    assert watch.attack.input_range == (0.0, 255.0)
    assert watch.attack.epsilon == 8.0
    watch = RobustAccuracy(255.0 * x, y, epsilon=3.0, norm=2, steps=2)
    watch.set_model(robust)
    watch.on_train_begin()
    assert (watch.attack.norm, watch.attack.epsilon) == ("l2", 3.0)
    watch = RobustAccuracy(255.0 * x, y, norm="l2")
    watch.set_model(robust)
    with pytest.raises(ValueError, match="has no radius"):
        watch.on_train_begin()


def test_bad_settings():
    for wrong, message in (
        ({"every": 0}, "`every` is out of range"),
        ({"epsilon": -1.0}, "`epsilon` is out of range"),
        ({"steps": 0}, "`steps` is out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            RobustAccuracy(X, Y, **{"epsilon": 0.1, **wrong})


def test_what_does_not_fit_the_model():
    for x, y, epsilon, message in (
        (X, Y + 1, 0.1, "`y` is out of range"),
        (X, Y[:2], 0.1, "one label per example"),
        (X + 1.0, Y, 0.1, "leaves the input range"),
        (X, Y, None, "has no radius"),
    ):
        watch = RobustAccuracy(x, y, epsilon=epsilon)
        with pytest.raises(ValueError, match=message):
            linear(4.0).fit(X, Y, verbose=0, callbacks=[watch])
