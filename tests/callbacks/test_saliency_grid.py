"""The saliency grid: what it measures, draws and writes, and when."""

import io
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_jsigr as kj
from keras_jsigr.attacks import PGD
from keras_jsigr.callbacks import SaliencyGrid
from keras_jsigr.callbacks.saliency_grid import (
    EXACT_CLASSES,
    FILM_FRAMES,
    PROJECTIONS,
    Film,
    Measurement,
    Measurer,
    Record,
    draw_measurement,
    jacobian_norm_explainer,
)
from keras_jsigr.saliency.plot import to_pixels


def classifier(head="softmax", shape=(6, 6, 1)):
    flat, dense = keras.layers.Flatten(), keras.layers.Dense(3, head)
    return keras.Sequential([keras.Input(shape), flat, dense])


def measure(model, x, y=None, score="margin"):
    attack = PGD(epsilon=0.1, steps=2)
    return Measurer(model, x, y, attack, score)()


def test_jacobian_norm_of_a_linear_model_in_units_of_the_range():
    w = np.random.default_rng(0).normal(size=(6, EXACT_CLASSES)).astype("float32")
    x = np.zeros((3, 6), "float32")
    for unit in (1.0, 255.0):
        norms = jacobian_norm_explainer(lambda x: x @ w, x, unit=unit)(x)
        np.testing.assert_allclose(norms, unit * np.linalg.norm(w), rtol=1e-5)
    x = np.array([[1.0, 0.0], [2.0, 3.0]], "float32")
    norms = jacobian_norm_explainer(lambda x: x**2, x)(x)
    np.testing.assert_allclose(norms, 2.0 * np.linalg.norm(x, axis=1), rtol=1e-6)


def test_estimate_for_many_classes_is_unbiased():
    classes, examples = EXACT_CLASSES + 1, 400
    w = np.random.default_rng(0).normal(size=(6, classes)).astype("float32")
    x = np.zeros((examples, 6), "float32")
    estimate = jacobian_norm_explainer(lambda x: x @ w, x[:1], batch_size=examples)
    squares = estimate(x).astype("float64") ** 2
    error = squares.std() / np.sqrt(examples)
    assert abs(squares.mean() - np.sum(w.astype("float64") ** 2)) < 4.0 * error
    assert squares.std() < squares.mean() * np.sqrt(2.0 / PROJECTIONS)
    np.testing.assert_array_equal(estimate(x), estimate(x))


def test_probabilities_are_those_of_the_model():
    x = np.random.default_rng(0).uniform(size=(3, 6, 6)).astype("float32")
    for model in (
        classifier("softmax", (6, 6)),
        kj.harden(classifier("sigmoid", (6, 6)), verbose=0),
    ):
        found = measure(model, x)
        np.testing.assert_allclose(found.probabilities, model(x), rtol=1e-5)
        adversarial = model(found.x_adv)
        np.testing.assert_allclose(found.probabilities_adv, adversarial, rtol=1e-5)


def test_maps_of_independent_classes_are_of_all_decisions():
    model = classifier("sigmoid")
    x = np.random.default_rng(0).uniform(size=(4, 6, 6, 1)).astype("float32")
    y = np.eye(3, dtype="float32")[[0, 2, 1, 0]]
    decided = (np.asarray(model(x)) > 0.5).astype("float32")
    for given, targets in ((y, y), (None, decided)):
        found = measure(model, x, given, "log_prob")
        maps = kj.gradient_map(model, x, targets, kind="sigmoid", layout="image")
        np.testing.assert_allclose(found.gradient, maps, rtol=1e-4, atol=1e-7)


def test_images_of_a_few_pixels_have_fewer_cells():
    x = np.random.default_rng(0).uniform(size=(2, 3, 4, 1)).astype("float32")
    assert measure(classifier(None, (3, 4, 1)), x).perturbation.shape == (2, 3, 4)


def seen(n=3, shape=(28, 28, 1)):
    rng = np.random.default_rng(0)
    x, x_adv = rng.uniform(0.0, 1.0, (2, n, *shape))
    maps = rng.uniform(0.0, 1.0, (3, n, *shape[:2]))
    p = rng.dirichlet(np.ones(3), n)
    figures = ("agreement", "stability", "sparsity", "jacobian_norm")
    figures = {name: rng.uniform(0, 1, n) for name in figures}
    return Measurement(x, x_adv, np.arange(n) % 3, p, p[::-1], *maps, figures=figures)


def draw(measurement, names=("cat", "a class with a very long name", "鞋")):
    settings = {"title": "epoch 3", "note": "PGD", "input_range": (0.0, 1.0)}
    return draw_measurement(measurement, class_names=names, **settings)


def test_gradient_maps_share_one_scale():
    measurement = seen()
    measurement.gradient[1] /= 10.0
    figure = draw(measurement)
    top = f"0 to {np.quantile(measurement.gradient, 0.99):.2f}"
    assert [t.get_text() for t in figure.axes[0].texts].count(top) == 2
    bright, dark = (np.asarray(figure.axes[0].images[3 + row].get_array()).mean() for row in (0, 1))
    assert dark < 0.5 * bright


@pytest.mark.slow
def test_eight_rows_are_readable_small_and_do_not_overlap():
    for shape in ((28, 28, 1), (224, 224, 3), (16, 90, 3), (1, 1, 1)):
        figure = draw(seen(8, shape))
        pixels = to_pixels(figure)
        assert max(pixels.shape) < 1300
        axes, renderer = figure.axes[0], figure.canvas.get_renderer()
        texts = [text.get_window_extent(renderer) for text in axes.texts]
        pictures = [image.get_window_extent(renderer) for image in axes.images]
        assert len(pictures) == 48
        for index, box in enumerate(texts):
            assert 8 <= box.x0 < box.x1 <= pixels.shape[1] - 8
            assert 4 <= box.y0 < box.y1 <= pixels.shape[0] - 4
            assert not box.count_overlaps([*texts[:index], *pictures])


def test_long_films_are_thinned(tmp_path):
    paths = []
    for index in range(FILM_FRAMES + 20):
        paths.append(tmp_path / f"{index:03d}.png")
        Image.new("RGB", (8, 6), (3 * index, 0, 0)).save(paths[-1])
    film = Film(tmp_path / "film.gif")
    film.write(paths[:2])
    film.write(paths)
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == FILM_FRAMES
        assert gif.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
        gif.seek(FILM_FRAMES - 1)
        red = gif.convert("RGB").getpixel((0, 0))[0]
        assert abs(red - 3 * (FILM_FRAMES + 19)) <= 8


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

        def __init__(self, model, x, *settings):
            self.x = x

        def __call__(self):
            return seen(len(self.x), self.x.shape[1:])

    monkeypatch.setattr("keras_jsigr.callbacks.saliency_grid.Measurer", Noise)


def names(folder, pattern="*.png"):
    return sorted(path.name for path in Path(folder, "saliency").glob(pattern))


def frames(folder):
    with Image.open(Path(folder, "saliency", "grid.gif")) as film:
        return film.n_frames


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
    callback = grid()
    fit(hardened(), callback)
    assert callback.attack.epsilon == 0.1
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
    callback = grid(every=2, labels=False, gif=False)
    fit(plain(), callback, epochs=5)
    assert callback.attack.epsilon == 8 / 255
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
    ("together", "expected"),
    [pytest.param(1, [0, 3, 6], marks=pytest.mark.slow), (2, [0, 4, 6])],
)
@pytest.mark.usefixtures("quick")
def test_every_three_steps(grid, fit, plain, tmp_path, together, expected):
    model = plain()
    loss = "sparse_categorical_crossentropy"
    model.compile("sgd", loss, steps_per_execution=together)
    # Six steps of one epoch; reports come after every `together` of them.
    fit(model, grid(every=3, freq="batch", gif=False), epochs=1, batch_size=3)
    assert names(tmp_path) == [f"grid-step-{n:07d}.png" for n in expected]


def test_only_batch_frequency_is_seen_by_the_loop(grid):
    def waits(callback):
        return not getattr(callback.on_train_batch_end, "_is_default", False)

    assert not waits(grid())
    assert waits(grid(freq="batch"))


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
    assert frames(tmp_path) == 5
    # Another training in this folder leaves later frames out of its film.
    fit(plain(), grid(tensorboard=False), epochs=1)
    assert len(names(tmp_path)) == 5
    assert frames(tmp_path) == 2


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
def test_diverged_model_is_drawn(grid, fit, plain, tmp_path):
    model = plain()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.warns(RuntimeWarning, match="NaN or infinite"):
        fit(model, grid(), epochs=1)
    assert len(names(tmp_path)) == 2


def test_bad_settings(data):
    for wrong, message in (
        ({"every": 0}, "`every` is out of range"),
        ({"freq": "steps"}, "Unknown `freq`"),
        ({"score": "loss"}, "Unknown `score`"),
        ({"epsilon": -1.0}, "`epsilon` is out of range"),
        ({"norm": "l3"}, "Unknown `norm`"),
        ({"png": False}, "made of the PNG files"),
        ({"x": np.zeros((2, 4))}, "shows images"),
        ({"y": [0]}, "one label per image"),
    ):
        settings = {"x": data[0][:2], "y": data[1][:2], **wrong}
        with pytest.raises(ValueError, match=message):
            SaliencyGrid(settings.pop("x"), settings.pop("y"), **settings)


def test_what_does_not_fit_the_model(data, fit, plain, tmp_path):
    model = plain()
    for wrong, message in (
        ({"y": [0, 3]}, "`y` is out of range"),
        ({"class_names": ["a", "b"]}, "`class_names` does not fit"),
        ({"x": np.full((2, 8, 8, 1), 2.0)}, "leaves the input range"),
        ({"norm": 2}, "has no radius"),
    ):
        settings = {"x": data[0][:2], "y": data[1][:2], "log_dir": tmp_path, **wrong}
        callback = SaliencyGrid(settings.pop("x"), settings.pop("y"), **settings)
        with pytest.raises(ValueError, match=message):
            fit(model, callback)
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
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match="pip install matplotlib pillow"):
        SaliencyGrid(data[0][:2])


SECONDS = 60
# The pictures of a page with shadow roots: TensorBoard nests its elements in them.
PICTURES = """
const found = [];
const look = (root) => {
  for (const e of root.querySelectorAll("*")) {
    if (e.tagName === "IMG" && e.src.includes("individualImage")) found.push(e);
    if (e.shadowRoot) look(e.shadowRoot);
  }
};
look(document);
return found.map((e) => [e.naturalWidth, e.naturalHeight]);
"""


@pytest.fixture
def tensorboard(tmp_path):
    """Start the viewer on a free port and return its address."""
    pytest.importorskip("tensorboard.program", reason="tensorboard is missing")
    picture = np.full((300, 400, 3), 255, np.uint8)
    picture[100:200, 100:300] = [188, 55, 84]
    record = Record(tmp_path / "saliency", "epoch")
    for number in range(2):
        record.add(number, picture, {"saliency/agreement": 0.5})
    record.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/data/plugin/images/tags"))
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def driver(tmp_path, open_chromium):
    made = open_chromium(tmp_path / "chromium", "--window-size=1400,1300")
    yield made
    made.quit()


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return b"saliency/grid" in answer.read()
    except OSError:
        return False


def wait_for(condition):
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"nothing after {SECONDS} seconds"
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_images_tab_shows_the_grid(tensorboard, driver):
    driver.get(f"{tensorboard}/#images")
    shown = wait_for(lambda: [size for size in driver.execute_script(PICTURES) if size[0]])
    assert shown == [[400, 300]]
    pixels = np.asarray(Image.open(io.BytesIO(driver.get_screenshot_as_png())))
    reds = (np.abs(pixels[..., :3].astype(int) - [188, 55, 84]) < 12).all(-1)
    assert reds.sum() > 2_000
