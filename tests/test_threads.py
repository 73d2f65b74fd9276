"""Several threads use one model at once, and nobody notices the others."""

import itertools
import threading
import uuid

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj

EPSILON = 0.1
RNG = np.random.default_rng(0)
X = RNG.random((8, 12, 12, 3), "float32")
Y = np.arange(8) % 3
LOSS = "sparse_categorical_crossentropy"


def make_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.BatchNormalization(trainable=False),
            layers.Conv2D(6, 3, activation="silu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def fit(model):
    """Train the shared model, at a learning rate of zero; return the losses."""
    robust = kj.harden(model, epsilon=EPSILON, verbose=0)
    robust.compile(keras.optimizers.SGD(0.0), LOSS)
    history = robust.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    return np.array([history[name] for name in sorted(history)])


def save(model, folder):
    path = folder / f"{uuid.uuid4().hex}.keras"
    model.save(path)
    return keras.models.load_model(path)(X).numpy()


def export(model, folder):
    path = folder / uuid.uuid4().hex
    kj.harden(model, epsilon=EPSILON, verbose=0).export(path, verbose=0)
    served = tf.saved_model.load(path)
    signature = served.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return np.concatenate([np.ravel(value) for _, value in sorted(signature(**{name: X}).items())])


def evaluate(model):
    report = kj.evaluate_robustness(
        model,
        X,
        Y,
        epsilon=EPSILON,
        attacks=[
            kj.attacks.PGD(EPSILON, steps=3),
            kj.attacks.Square(EPSILON, queries=10),
        ],
        verbose=0,
    )
    return np.array([report.clean.accuracy, report.robust.accuracy], float)


def make_jobs(model, folder):
    methods = kj.saliency.METHODS
    return {
        "call": lambda: model(X).numpy(),
        "predict": lambda: model.predict(X, verbose=0),
        "fit": lambda: fit(model),
        "save": lambda: save(model, folder),
        "export": lambda: export(model, folder),
        "evaluate": lambda: evaluate(model),
        "attack": lambda: kj.attacks.PGD(EPSILON, steps=3, seed=2)(model, X, Y),
        **{
            f"explain {name}": lambda name=name: kj.explain(model, X, Y, method=name)
            for name in methods
        },
    }


@pytest.mark.slow
def test_answers_are_those_of_a_single_thread(tmp_path):
    model = make_model()
    weights = model.get_weights()
    jobs = make_jobs(model, tmp_path)
    expected = {name: job() for name, job in jobs.items()}
    names, wrong = list(jobs), []

    def work(start):
        # Each thread takes the jobs in another order.
        order = itertools.islice(itertools.cycle(names), start, start + 2 * len(names))
        for name in order:
            try:
                np.testing.assert_allclose(jobs[name](), expected[name], rtol=1e-4, atol=1e-5)
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")

    threads = [threading.Thread(target=work, args=(k * len(names) // 4,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, "\n".join(wrong)
    for before, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, now)
    assert model.layers[0].activation is keras.activations.relu
    assert model.layers[-1].activation is keras.activations.softmax
    assert model(X).numpy() == pytest.approx(expected["call"], abs=1e-6)
