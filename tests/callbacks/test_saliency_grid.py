"""The grid as a callback: what is written when, and what training does not notice."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_jsigr as kj
from keras_jsigr.callbacks import SaliencyGrid
from keras_jsigr.callbacks.grid.measurement import Measurement


@pytest.fixture
def grid(data, tmp_path):
    """Make a callback for the first images."""
    x, y = data

    def make(count=2, labels=True, **kwargs):
        settings = {"log_dir": tmp_path, "attack_steps": 2, **kwargs}
        return SaliencyGrid(x[:count], y[:count] if labels else None, **settings)

    return make


@pytest.fixture
def quick(monkeypatch):
    """Let the grid show noise: for what is written when, the maps do not matter."""

    class Noise:
        classes = 3

        def __init__(self, model, probe, *settings):
            self.x = probe.x

        def __call__(self):
            rng = np.random.default_rng(0)
            n, *side = self.x.shape[:3]
            maps = rng.uniform(0.0, 1.0, (3, n, *side))
            p = np.full((n, 3), 1 / 3)
            figures = {"agreement": np.zeros(n)}
            return Measurement(
                self.x, self.x, np.zeros(n, int), p, p, *maps, figures=figures
            )

    monkeypatch.setattr("keras_jsigr.callbacks.saliency_grid.Measurer", Noise)


def names(folder, pattern="*.png"):
    return sorted(path.name for path in Path(folder, "saliency").glob(pattern))


def written(path):
    """Sort files of events as they were written: by second, process and number.

    Within a second the tenth file of a process comes after the ninth.
    """
    return [int(digits) for digits in re.findall(r"\d+", path.name)]


def events(folder):
    """Return {tag: {step: value}} of all event files: numbers, and picture sizes."""
    found = {}
    for path in sorted(Path(folder, "saliency").glob("events*"), key=written):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                content = tf.make_ndarray(value.tensor)
                if value.metadata.plugin_data.plugin_name == "images":
                    content = tf.io.decode_png(content[2]).shape
                found.setdefault(value.tag, {})[event.step] = content
    return found


def test_every_epoch_of_a_hardened_model(grid, fit, hardened, tmp_path):
    fit(hardened(ramp_steps=0), grid())
    assert names(tmp_path) == [f"grid-epoch-000{n}.png" for n in range(3)]
    with Image.open(tmp_path / "saliency" / "grid-epoch-0002.png") as picture:
        size = picture.size
    with Image.open(tmp_path / "saliency" / "grid.gif") as film:
        assert film.n_frames == 3
        assert film.size[0] == 800
    found = events(tmp_path)
    assert found["saliency/grid"] == dict.fromkeys(range(3), (size[1], size[0], 3))
    for name in ("agreement", "stability", "sparsity", "jacobian_norm"):
        assert list(found[f"saliency/{name}"]) == [0, 1, 2]
    for name in ("jacobian", "selective"):
        assert list(found[f"penalty_share/{name}"]) == [1, 2]
        assert 0 < found[f"penalty_share/{name}"][2] < 1
    assert not [p for p in Path(tmp_path, "saliency").iterdir() if ".tmp" in p.name]


@pytest.mark.usefixtures("quick")
def test_every_second_epoch_of_a_plain_model(grid, fit, plain, tmp_path):
    fit(plain(), grid(every=2, labels=False, gif=False), epochs=5)
    assert names(tmp_path) == [f"grid-epoch-000{n}.png" for n in (0, 2, 4)]
    assert names(tmp_path, "*.gif") == []
    assert not [tag for tag in events(tmp_path) if tag.startswith("penalty_share")]


def test_figures_are_those_of_the_functions(grid, data, plain, fit, tmp_path):
    from keras_jsigr.saliency.metrics import gini, rank_correlation

    model = plain()
    fit(model, grid(png=False, gif=False), epochs=1)
    found = events(tmp_path)
    x, y = data[0][:2], data[1][:2]
    gradient = kj.gradient_map(model, x, y, score="margin")
    occlusion = kj.perturbation_map(model, x, y)
    for name, values in (
        ("sparsity", gini(gradient)),
        ("agreement", rank_correlation(gradient, occlusion)),
    ):
        expected = float(tf.reduce_mean(values))
        assert found[f"saliency/{name}"][1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("together", "expected"), [(1, [0, 3, 6]), (2, [0, 4, 6]), (3, [0, 3, 6])]
)
@pytest.mark.usefixtures("quick")
def test_every_three_steps(grid, fit, plain, tmp_path, together, expected):
    model = plain()
    loss = "sparse_categorical_crossentropy"
    model.compile("sgd", loss, steps_per_execution=together)
    # Six steps of one epoch; reports come after every `together` of them.
    fit(model, grid(every=3, freq="batch"), epochs=1, batch_size=3)
    assert names(tmp_path) == [f"grid-step-{n:07d}.png" for n in expected]


def test_only_batch_frequency_is_seen_by_the_loop(grid):
    def waits(callback):
        return not getattr(callback.on_train_batch_end, "_is_default", False)

    assert not waits(grid())
    assert waits(grid(freq="batch"))


@pytest.mark.slow
def test_training_takes_the_same_steps(grid, fit, hardened):
    alone, watched = hardened(dropout=0.3), hardened(dropout=0.3)
    fit(alone, epochs=1)
    fit(watched, grid(freq="batch"), epochs=1)
    for left, right in zip(alone.variables, watched.variables, strict=True):
        # Steps and random states to the bit, sums of floats as the threads add them.
        exact = "int" in left.dtype
        np.testing.assert_allclose(
            left, right, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5
        )


@pytest.mark.slow
def test_nothing_is_traced_again(grid, fit, plain):
    model, traces = plain(), []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: traces.append(model.get_layer("traced").traces)
    )
    callback = grid(gif=False)
    fit(model, callback, watch, epochs=3)
    fit(model, callback, watch, epochs=1)
    # Training step and functions of the grid: all of them in the first epoch.
    assert len(traces) == 4
    assert len(set(traces)) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_resumed_training_goes_on_with_the_film(grid, fit, plain, tmp_path):
    class Interrupted(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(KeyboardInterrupt):
        fit(plain(), grid(), backup(), Interrupted(), epochs=4)
    first = (tmp_path / "saliency" / "grid-epoch-0000.png").read_bytes()
    assert names(tmp_path) == [f"grid-epoch-000{n}.png" for n in range(3)]
    fit(plain(), grid(), backup(), epochs=4)
    assert names(tmp_path) == [f"grid-epoch-000{n}.png" for n in range(5)]
    assert (tmp_path / "saliency" / "grid-epoch-0000.png").read_bytes() == first
    assert list(events(tmp_path)["saliency/grid"]) == [0, 1, 2, 3, 4]
    with Image.open(tmp_path / "saliency" / "grid.gif") as film:
        assert film.n_frames == 5


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_film_leaves_out_later_frames_of_an_earlier_training(
    grid, fit, plain, tmp_path
):
    fit(plain(), grid(tensorboard=False), epochs=4)
    fit(plain(), grid(tensorboard=False), epochs=1)
    assert len(names(tmp_path)) == 5
    with Image.open(tmp_path / "saliency" / "grid.gif") as film:
        assert film.n_frames == 2


@pytest.fixture
def two_devices():
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


@pytest.mark.slow
def test_on_two_devices(grid, fit, hardened, two_devices, tmp_path):
    with two_devices.scope():
        robust = hardened()
    fit(robust, grid(freq="batch", every=4))
    assert len(names(tmp_path)) == 3
    shares = events(tmp_path)["penalty_share/jacobian"]
    assert all(0 < share < 1 for share in shares.values())


@pytest.mark.usefixtures("quick")
def test_only_the_chief_draws(grid, fit, plain, tmp_path, monkeypatch):
    model = plain()
    extended = type(model.distribute_strategy.extended)
    monkeypatch.setattr(extended, "should_save_summary", False, raising=False)
    fit(model, grid(), epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_range_of_the_hardened_model(data, fit, hardened, tmp_path):
    x, y = data
    robust = hardened(input_range=(0.0, 255.0))
    callback = SaliencyGrid(255.0 * x[:2], y[:2], log_dir=tmp_path, epsilon=8.0)
    robust.fit(255.0 * x, y, verbose=0, callbacks=[callback])
    assert callback.attack.input_range == (0.0, 255.0)


@pytest.mark.slow
def test_diverged_model_is_drawn(grid, fit, plain, tmp_path):
    model = plain()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.warns(RuntimeWarning, match="NaN or infinite"):
        fit(model, grid(), epochs=1)
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": 0}, "`every` is out of range"),
        ({"freq": "steps"}, "Unknown `freq`"),
        ({"score": "loss"}, "Unknown `score`"),
        ({"epsilon": -1.0}, "`epsilon` is out of range"),
        ({"norm": "l3"}, "Unknown `norm`"),
        ({"png": False}, "made of the PNG files"),
        ({"x": np.zeros((2, 4))}, "shows images"),
        ({"x": np.zeros((0, 4, 4))}, "expected 1 to 32"),
        ({"x": np.zeros((33, 4, 4))}, "expected 1 to 32"),
        ({"x": np.full((2, 4, 4), np.nan)}, "NaN or infinity"),
        ({"y": [0]}, "one label per image"),
    ],
)
def test_bad_settings(data, wrong, message):
    settings = {"x": data[0][:2], "y": data[1][:2], **wrong}
    with pytest.raises(ValueError, match=message):
        SaliencyGrid(settings.pop("x"), settings.pop("y"), **settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"y": [0, 3]}, "`y` is out of range"),
        ({"class_names": ["a", "b"]}, "`class_names` does not fit"),
        ({"x": np.full((2, 8, 8, 1), 2.0)}, "leaves the input range"),
    ],
)
def test_what_does_not_fit_the_model(data, fit, plain, tmp_path, wrong, message):
    settings = {"x": data[0][:2], "y": data[1][:2], "log_dir": tmp_path, **wrong}
    callback = SaliencyGrid(settings.pop("x"), settings.pop("y"), **settings)
    with pytest.raises(ValueError, match=message):
        fit(plain(), callback)
    assert names(tmp_path) == []


def test_model_of_two_inputs(data, grid):
    a, b = keras.Input((8, 8, 1)), keras.Input((2,))
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(a), b])
    model = keras.Model([a, b], keras.layers.Dense(3, "softmax")(joined))
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = data
    inputs = [x, np.zeros((len(x), 2))]
    with pytest.raises(ValueError, match="takes 2 inputs"):
        model.fit(inputs, y, verbose=0, callbacks=[grid()])


def test_without_the_packages(data, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match="pip install pillow matplotlib"):
        SaliencyGrid(data[0][:2])
