"""Training under TensorFlow's switches for debugging, each for a whole process."""

import subprocess
import sys

import pytest

PROGRAM = """
import keras, numpy as np, tensorflow as tf, keras_jsigr as kj
{switch}
x, y = np.random.default_rng(0).random((8, 8, 8, 1), "float32"), np.arange(8) % 3
for recipe in ("balanced", "fast"):
    net = keras.Sequential([keras.Input((8, 8, 1)),
        keras.layers.SeparableConv2D(4, 3, activation="silu"),
        keras.layers.BatchNormalization(), keras.layers.MaxPooling2D(),
        keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    robust = kj.harden(net, 0.1, recipe, warmup=0, verbose=0)
    robust.compile("sgd", "sparse_categorical_crossentropy")
    robust.fit(x, y, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    assert np.isfinite(robust.fit(data, verbose=0).history["loss"]).all()
"""
SWITCHES = (
    "tf.debugging.enable_check_numerics()",
    "tf.config.run_functions_eagerly(True)",
    "keras.utils.set_random_seed(0); tf.config.experimental.enable_op_determinism()",
)


@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
def test_it_trains_under(switch):
    program = [sys.executable, "-c", PROGRAM.format(switch=switch)]
    subprocess.run(program, check=True, timeout=300)
