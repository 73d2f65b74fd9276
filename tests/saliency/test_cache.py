"""Cached maps: their file, keys, table inside a model, and fingerprints."""

import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_jsigr as kj
from keras_jsigr.core.files import read_cache_file, write_cache_file
from keras_jsigr.saliency import PerturbationCache, perturbation_map
from keras_jsigr.saliency import cache as cache_module
from keras_jsigr.saliency.cache import MapTable, content_keys, sorted_rows
from keras_jsigr.saliency.fingerprint import (
    architecture_of,
    fingerprint_array,
    fingerprint_model,
)
from keras_jsigr.saliency.perturbation import (
    normalize_coefficients,
    perturbation_coefficients,
)

SMALL = {"grid": 2, "batch_size": 4}
QUIET = {"verbose": 0, **SMALL}


def test_coefficients_within_half_a_step_of_the_direct_ones(conv_net, images):
    cache = PerturbationCache.build(conv_net, images, **QUIET)
    direct = perturbation_coefficients(conv_net, images, None, cache.bank)
    direct = normalize_coefficients(direct).numpy()
    found, known = cache.lookup(images)
    assert known.all()
    assert found.dtype == np.float32
    assert np.abs(found - direct).max() <= 1 / 510 + 1e-4
    maps = perturbation_map(conv_net, images, grid=2)
    np.testing.assert_allclose(cache.maps(images), maps, atol=1 / 510 + 1e-4)
    assert cache.size == 11
    assert cache.codes.dtype == np.uint8
    assert np.all(np.diff(cache.keys) > 0)
    np.testing.assert_array_equal(cache.coefficients.max(1), 1.0)
    assert repr(cache) == "PerturbationCache(11 maps (10, 8) of 4 masks)"


def test_lookup_under_shuffle_with_duplicates_and_misses(conv_net, images, rng):
    cache = PerturbationCache.build(conv_net, images, **QUIET)
    in_order, _ = cache.lookup(images)
    order = rng.integers(0, 11, 30)
    batch = images[order]
    batch[7] += 0.25
    found, known = cache.lookup(batch)
    expected = in_order[order]
    expected[7] = 0.0
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.flatnonzero(~known), [7])
    np.testing.assert_array_equal(cache.maps(batch)[7], 0.0)
    np.testing.assert_array_equal(cache.lookup(batch.astype("float64"))[0], expected)


def test_duplicates_are_merged_and_the_first_kept(conv_net, images):
    x = np.concatenate([images, images[2:5]])
    y = np.arange(14) % 3
    kwargs = {**QUIET, "score": "probability_drop"}
    once = PerturbationCache.build(conv_net, images, y[:11], **kwargs)
    cache = PerturbationCache.build(conv_net, x, y, **kwargs)
    assert cache.size == 11
    np.testing.assert_array_equal(cache.keys, once.keys)
    np.testing.assert_allclose(cache.coefficients, once.coefficients, atol=1 / 254)


def test_colliding_keys_of_different_examples_are_refused():
    keys, x = np.array([5, 3, 5]), np.array([[1.0], [0.0], [2.0]])
    with pytest.raises(ValueError, match=r"different examples \[0, 2\]"):
        sorted_rows(keys, x)
    x[2], x[0] = np.nan, np.nan
    assert sorted_rows(keys, x).tolist() == [1, 0]
    many = np.tile(np.arange(50), 100)
    assert sorted_rows(many, many[:, None]).tolist() == list(range(50))


def test_round_trip_through_file_and_pickle(conv_net, images, tmp_path, capsys):
    path = tmp_path / "cache.npz"
    cache = PerturbationCache.build(conv_net, images, path=path, **QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["cache.npz"]
    for other in (PerturbationCache.load(path), pickle.loads(pickle.dumps(cache))):
        np.testing.assert_array_equal(other.keys, cache.keys)
        np.testing.assert_array_equal(other.codes, cache.codes)
        assert other.bank == cache.bank
        np.testing.assert_array_equal(other.maps(images), cache.maps(images))
    assert capsys.readouterr().out == ""
    before = path.stat().st_mtime_ns
    again = PerturbationCache.build(conv_net, images, path=path, grid=2, batch_size=7, verbose=1)
    assert path.stat().st_mtime_ns == before
    assert again.size == 11
    assert "Loaded the maps of 11 examples" in capsys.readouterr().out


def test_a_mismatch_names_what_differs(conv_net, images, tmp_path):
    path = tmp_path / "cache.npz"
    PerturbationCache.build(conv_net, images, path=path, **QUIET)
    build = PerturbationCache.build
    with pytest.raises(ValueError, match=r"differs in bank .*'grid': \[2, 2\]"):
        build(conv_net, images, path=path, verbose=0, grid=3)
    with pytest.raises(ValueError, match=r"differs in baseline \(got 'blur'"):
        build(conv_net, images, path=path, baseline="zero", **QUIET)
    with pytest.raises(ValueError, match="differs in data"):
        build(conv_net, images[:5], path=path, **QUIET)
    with pytest.raises(ValueError, match="differs in labels"):
        build(conv_net, images, np.arange(11) % 3, path=path, **QUIET)
    conv_net.layers[-1].bias.assign([1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"differs in teacher .*overwrite=True"):
        build(conv_net, images, path=path, **QUIET)
    new = build(conv_net, images, path=path, overwrite=True, **QUIET)
    assert PerturbationCache.load(path).identity == new.identity


def test_a_damaged_file_is_refused_and_can_be_overwritten(conv_net, images, tmp_path):
    path = tmp_path / "cache.npz"
    PerturbationCache.build(conv_net, images, path=path, **QUIET)
    path.write_bytes(path.read_bytes()[:-40])
    for action in (
        lambda: PerturbationCache.load(path),
        lambda: PerturbationCache.build(conv_net, images, path=path, **QUIET),
    ):
        with pytest.raises(ValueError, match="damaged"):
            action()
    PerturbationCache.build(conv_net, images, path=path, overwrite=True, **QUIET)
    assert PerturbationCache.load(path).size == 11


class Teacher:
    """Counts the examples it sees while running and may die after some of them."""

    def __init__(self, die_after=None):
        self.batches = 0
        self.die_after = die_after

    def __call__(self, x):
        z = tf.reduce_sum(x * tf.range(1.0, 11.0)[:, None, None], (1, 2))
        z = tf.concat([z, 2.0 - z], 1) / 50.0

        def count(value):
            self.batches += 1
            if self.die_after is not None and self.batches > self.die_after:
                raise RuntimeError("killed")
            return value

        z.set_shape((None, 4))
        out = tf.numpy_function(count, [z], tf.float32)
        out.set_shape((None, 4))
        return out


def test_a_killed_build_goes_on_where_it_stopped(images, tmp_path, capsys):
    path = tmp_path / "cache.npz"
    whole_teacher = Teacher()
    whole = PerturbationCache.build(whole_teacher, images, **QUIET)
    per_batch, overhead = 5, whole_teacher.batches - 15
    dying = Teacher(die_after=overhead + 2 * per_batch + 2)
    with pytest.raises(tf.errors.UnknownError, match="killed"):
        PerturbationCache.build(dying, images, path=path, **QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["cache.npz.partial"]
    with pytest.raises(ValueError, match="expected a finished cache"):
        PerturbationCache.load(f"{path}.partial")
    second = Teacher()
    cache = PerturbationCache.build(second, images, path=path, verbose=1, **SMALL)
    assert second.batches == overhead + per_batch
    assert "Going on with 8 examples" in capsys.readouterr().out
    np.testing.assert_array_equal(cache.codes, whole.codes)
    assert [p.name for p in tmp_path.iterdir()] == ["cache.npz"]


def test_progress_is_saved_as_time_goes(images, tmp_path, monkeypatch):
    saves = []
    real = cache_module.write_cache_file

    def spy(path, header, arrays):
        saves.append(len(arrays["codes"]))
        real(path, header, arrays)

    monkeypatch.setattr(cache_module, "write_cache_file", spy)
    monkeypatch.setattr(cache_module, "_SECONDS_BETWEEN_SAVES", 0.0)
    PerturbationCache.build(Teacher(), images, path=tmp_path / "c.npz", **QUIET)
    assert saves[:3] == [4, 8, 11]


@pytest.mark.parametrize("spoil", ["settings", "bytes"])
def test_a_partial_file_that_does_not_fit_is_ignored(images, tmp_path, spoil):
    path = tmp_path / "cache.npz"
    partial = tmp_path / "cache.npz.partial"
    with pytest.raises(tf.errors.UnknownError):
        PerturbationCache.build(Teacher(14), images, path=path, **QUIET)
    assert partial.exists()
    settings = {**QUIET, "baseline": "zero"} if spoil == "settings" else QUIET
    if spoil == "bytes":
        partial.write_bytes(b"nonsense")
    fresh = PerturbationCache.build(Teacher(), images, **settings)
    cache = PerturbationCache.build(Teacher(), images, path=path, **settings)
    np.testing.assert_array_equal(cache.codes, fresh.codes)
    assert not partial.exists()


def test_progress_bar_and_integer_data(rng, capsys):
    x = rng.integers(0, 255, (9, 10, 8, 2), dtype="uint8")
    teacher = Teacher()
    model = lambda v: teacher(tf.cast(v, tf.float32) / 255.0)  # noqa: E731
    cache = PerturbationCache.build(model, x, **SMALL)
    assert "9/9" in capsys.readouterr().out
    keras.config.disable_interactive_logging()
    try:
        PerturbationCache.build(model, x, **SMALL)
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr().out == ""
    assert cache.lookup(x.astype("float32"))[1].all()


def test_error_messages(conv_net, images):
    with pytest.raises(ValueError, match="Got no examples"):
        PerturbationCache.build(conv_net, images[:0], **QUIET)
    with pytest.raises(ValueError, match="11 examples and 3 labels"):
        PerturbationCache.build(conv_net, images, [0, 1, 2], **QUIET)
    with pytest.raises(ValueError, match="teacher's outputs"):
        PerturbationCache.build(lambda x: tf.reduce_sum(x, (1, 2)) / 0.0, images, **QUIET)


def test_examples_that_the_loss_leaves_out(conv_net, images):
    for score in ("squared_logits", "probability_drop"):
        y = np.arange(len(images)) % 3
        conv_net.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        )
        whole = PerturbationCache.build(conv_net, images, y, score=score, **QUIET)
        y[:2] = -1
        cache = PerturbationCache.build(conv_net, images, y, score=score, **QUIET)
        for part in (images[2:], *([images] if score == "squared_logits" else [])):
            np.testing.assert_array_equal(cache.maps(part), whole.maps(part))
        assert np.isfinite(cache.maps(images)).all()
        with pytest.raises(ValueError, match="got 7"):
            PerturbationCache.build(conv_net, images, [*y[1:], 7], score=score, **QUIET)


@pytest.fixture
def path_cache_file(tmp_path):
    path = tmp_path / "new" / "cache.npz"
    write_cache_file(path, {"grid": [5, 5]}, {"a": np.arange(1000)})
    return path


def test_a_failing_write_leaves_the_old_file(path_cache_file, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_cache_file(path_cache_file, {}, {"a": np.zeros(1)})
    assert [p.name for p in path_cache_file.parent.iterdir()] == ["cache.npz"]
    header, arrays = read_cache_file(path_cache_file)
    assert header == {"grid": [5, 5]}
    np.testing.assert_array_equal(arrays["a"], np.arange(1000))


def test_truncated(path_cache_file):
    whole = path_cache_file.read_bytes()
    for keep in (0, 10, 500, 4000, -1):
        path_cache_file.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match="damaged or foreign"):
            read_cache_file(path_cache_file)


def test_any_flipped_byte_is_noticed_or_harmless(path_cache_file):
    whole = path_cache_file.read_bytes()
    noticed = 0
    for at in range(0, len(whole), 97):
        spoiled = bytearray(whole)
        spoiled[at] ^= 0x5A
        path_cache_file.write_bytes(bytes(spoiled))
        try:
            header, arrays = read_cache_file(path_cache_file)
        except ValueError:
            noticed += 1
        else:  # A byte of the archive that carries nothing, such as a date.
            assert header == {"grid": [5, 5]}
            np.testing.assert_array_equal(arrays["a"], np.arange(1000))
    assert noticed > 70


def rewrite(path, change):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, header=text, **arrays)


def test_checksum_covers_header_and_arrays(path_cache_file):
    rewrite(path_cache_file, lambda header, arrays: header.update(grid=[4, 4]))
    with pytest.raises(ValueError, match="wrong checksum"):
        read_cache_file(path_cache_file)
    write_cache_file(path_cache_file, {}, {"a": np.arange(3)})
    rewrite(path_cache_file, lambda header, arrays: arrays.update(a=np.arange(4)))
    with pytest.raises(ValueError, match="wrong checksum"):
        read_cache_file(path_cache_file)


def test_newer_format_foreign_pickled_and_missing(path_cache_file):
    rewrite(path_cache_file, lambda header, arrays: header.update(format=2))
    with pytest.raises(ValueError, match="in format 2, expected 1"):
        read_cache_file(path_cache_file)
    np.savez(path_cache_file, a=np.zeros(2))
    with pytest.raises(ValueError, match="damaged or foreign"):
        read_cache_file(path_cache_file)
    np.savez(path_cache_file, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="damaged or foreign"):
        read_cache_file(path_cache_file)
    np.save(path_cache_file.with_suffix(".npy"), np.zeros(2))
    with pytest.raises(ValueError, match="damaged or foreign"):
        read_cache_file(path_cache_file.with_suffix(".npy"))
    with pytest.raises(FileNotFoundError):
        read_cache_file(path_cache_file.with_name("none.npz"))


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).uniform(size=(4, 3)).astype("float32")
    built = kj.PerturbationCache.build(lambda x: x, x, path="~/a.npz", verbose=0)
    built.save("~/b.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b.npz"}
    assert kj.PerturbationCache.load("~/b.npz").size == 4


MASK = (1 << 64) - 1


def python_key(values):
    """The same hash in arbitrary-precision Python."""
    total, state = 0, 0
    for bits in np.asarray(values, np.float32).ravel().view(np.uint32):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        constant = z ^ z >> 31 | 1
        signed = 0 if bits == 1 << 31 else int(bits) - ((int(bits) >> 31) << 32)
        h = signed * 0x9E3779B97F4A7C15 & MASK
        h = (h ^ h >> 32) * constant & MASK
        total = total + (h ^ h >> 29) & MASK
    for bits, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        total = (total ^ total >> bits) * factor & MASK
    total ^= total >> 31
    return total - (total >> 63 << 64)


def test_keys_equal_an_independent_implementation(rng):
    x = rng.normal(size=(5, 4, 3)).astype("float32")
    x[0, 0, 0], x[1] = -0.0, 0.0
    assert content_keys(x).numpy().tolist() == [python_key(row) for row in x]

    # They never change between releases.
    x = np.arange(6, dtype="float32").reshape(2, 3) / 7
    golden = [-2718415750374745450, -1548595345543846277]
    assert content_keys(x).numpy().tolist() == golden


def test_compiled_and_batch_independent(images):
    images[3, 0, 0, 0] = -0.0
    spec = tf.TensorSpec((None, 10, 8, 2), tf.float32)
    expected = content_keys(images).numpy()
    for jit in (False, True):
        compiled = tf.function(content_keys, [spec], autograph=False, jit_compile=jit)
        np.testing.assert_array_equal(compiled(images), expected)
        parts = [compiled(images[i : i + 3]) for i in range(0, 11, 3)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        positive = np.abs(images)
        np.testing.assert_array_equal(compiled(positive), expected)


def test_types_that_cast_to_the_same_float32(rng):
    x = rng.integers(0, 256, (6, 5), dtype="uint8")
    expected = content_keys(x.astype("float32")).numpy()
    for dtype in ("uint8", "int32", "int64", "float64", "float16"):
        np.testing.assert_array_equal(content_keys(x.astype(dtype)), expected)


def test_no_collisions_among_near_duplicates():
    # Binary images that differ in one or two pixels, and permutations of one row.
    eye = np.eye(300, dtype="float32")
    first, second = np.triu_indices(300, 1)
    pairs = eye[first] + eye[second]
    rng = np.random.default_rng(0)
    mixed = rng.permuted(np.tile(np.arange(300.0) / 255, (2000, 1)), axis=1)
    every = np.concatenate([eye, pairs, mixed, np.zeros((1, 300))])
    keys = content_keys(every.astype("float32")).numpy()
    assert len(np.unique(keys)) == len(every)
    # Every bit is set for about half of them.
    bits = (keys[:, None].view(np.uint64) >> np.arange(64, dtype=np.uint64)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 0.02


def test_open_shapes_are_refused():
    spec = tf.TensorSpec((None, None, 3), tf.float32)
    with pytest.raises(ValueError, match="fixed lengths after"):
        tf.function(content_keys, autograph=False).get_concrete_function(spec)


@pytest.fixture
def cache(conv_net, images):
    return PerturbationCache.build(conv_net, images, grid=2, verbose=0)


def test_modes(cache, images, rng):
    for mode in ("eager", "graph", "xla"):
        table = MapTable.from_cache(cache)
        run = table
        if mode != "eager":
            spec = tf.TensorSpec((None, 10, 8, 2), tf.float32)
            run = tf.function(table, input_signature=[spec], jit_compile=mode == "xla")
        order = rng.integers(0, 11, 20)
        batch = images[order]
        batch[4] += 1.0
        batch[5] -= 0.5
        maps, found = run(tf.constant(batch))
        assert maps.dtype == tf.float32
        assert maps.shape == (20, 10, 8)
        np.testing.assert_array_equal(np.flatnonzero(~found.numpy()), [4, 5])
        np.testing.assert_allclose(maps, cache.maps(batch), atol=1e-6)


@keras.saving.register_keras_serializable("test_map_table")
class Holder(keras.Model):
    """A model that carries a table beside a trained layer."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        maps, found = self.table(x)
        total = self.dense(keras.ops.mean(maps, axis=(1, 2))[:, None])
        return total, maps, found

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.table)
        return {**super().get_config(), "table": layer}

    @classmethod
    def from_config(cls, config):
        table = keras.saving.deserialize_keras_object(config.pop("table"))
        return cls(table, **config)


def test_saved_with_the_model(cache, images, tmp_path):
    model = Holder(MapTable.from_cache(cache))
    _, maps, _ = model(images)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    _, again, found = loaded(images)
    assert found.numpy().all()
    np.testing.assert_array_equal(again, maps)
    assert loaded.table.codes.dtype == "uint8"
    assert loaded.table.keys.dtype == "int64"
    assert [w.path.split("/")[-1] for w in model.trainable_weights] == [
        "kernel",
        "bias",
    ]
    loaded.save_weights(tmp_path / "model.weights.h5")


def test_works_in_a_functional_model(cache, images):
    inputs = keras.Input((10, 8, 2))
    maps, found = MapTable.from_cache(cache)(inputs)
    model = keras.Model(inputs, [maps, found])
    got, known = model.predict(images, batch_size=4, verbose=0)
    assert known.all()
    np.testing.assert_allclose(got, cache.maps(images), atol=1e-6)


def test_mixed_policies_leave_it_alone(cache, images):
    keras.config.set_dtype_policy("mixed_float16")
    table = MapTable.from_cache(cache)
    maps, found = table(tf.constant(images))
    again = MapTable.from_config(table.get_config())
    assert found.numpy().all()
    assert maps.dtype == tf.float32
    assert table.codes.dtype == "uint8"
    assert again.compute_dtype == "float32"


def test_training_data_is_found_through_fit(conv_net, images):
    class Model(keras.Model):
        def __init__(self, table):
            super().__init__()
            self.table = table
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(keras.ops.reshape(x, (-1, 160)))

        def train_step(self, data):
            found = self.table(data[0])[1]
            return {"hit": tf.reduce_mean(tf.cast(found, tf.float32))}

    for dtype, policy in (
        ("float32", "float32"),
        ("float32", "mixed_float16"),
        ("float64", "float32"),
        ("uint8", "mixed_float16"),
    ):
        keras.config.set_dtype_policy("float32")
        x = (images * 250).astype(dtype)
        cache = PerturbationCache.build(conv_net, x, grid=2, verbose=0)
        keras.config.set_dtype_policy(policy)
        model = Model(MapTable.from_cache(cache))
        model.compile("sgd", "mse")
        log = model.fit(x, np.zeros(11), batch_size=4, epochs=2, verbose=0)
        assert log.history["hit"] == [1.0, 1.0]


def test_assign_in_place_without_a_trace(cache, conv_net, images):
    table = MapTable.from_cache(cache)
    traces = []

    @tf.function
    def run(x):
        traces.append(1)
        return table(x)

    before = run(tf.constant(images))[0]
    conv_net.layers[-1].kernel.assign(conv_net.layers[-1].kernel * [1.0, -3.0, 0.1])
    fresh = PerturbationCache.build(conv_net, images, grid=2, verbose=0)
    table.assign(fresh)
    after = run(tf.constant(images))[0]
    assert len(traces) == 1
    assert np.abs(before - after).max() > 0.01
    np.testing.assert_allclose(after, fresh.maps(images), atol=1e-6)


def test_two_replicas(cache, images):
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("needs two logical devices; run tests/saliency on its own")
    strategy = tf.distribute.MirroredStrategy([d.name for d in devices[:2]])
    with strategy.scope():
        table = MapTable.from_cache(cache)
    data = tf.data.Dataset.from_tensor_slices(images[:8]).batch(4)
    run = tf.function(lambda x: table(x))
    seen = [
        strategy.experimental_local_results(strategy.run(run, args=(x,)))
        for x in strategy.experimental_distribute_dataset(data)
    ]
    parts = [replica for step in seen for replica in step]
    assert len(parts) == 4
    maps = np.concatenate([maps for maps, _ in parts])
    np.testing.assert_allclose(maps, cache.maps(images[:8]), atol=1e-6)


def test_error_messages_map_table(cache, conv_net, images):
    with pytest.raises(ValueError, match="positive number of rows"):
        MapTable(0, cache.bank)
    table = MapTable.from_cache(cache)
    fewer = PerturbationCache.build(conv_net, images[:5], grid=2, verbose=0)
    with pytest.raises(ValueError, match="Got a cache of 5 rows"):
        table.assign(fewer)
    finer = PerturbationCache.build(conv_net, images, grid=3, verbose=0)
    with pytest.raises(ValueError, match="make a new table"):
        table.assign(finer)


def test_values_and_shape_count_but_not_the_width():
    a = np.arange(6.0)
    assert fingerprint_array(a) == fingerprint_array(a.astype("float32"))
    assert fingerprint_array(a) != fingerprint_array(a.reshape(2, 3))
    assert fingerprint_array(a) != fingerprint_array(a + 1)
    assert fingerprint_array(a) != fingerprint_array(a.astype("int64"))
    assert fingerprint_array(None) == "none"
    many = np.arange(5000)
    other = many.copy()
    other[-1] = 0
    assert fingerprint_array(many) != fingerprint_array(other)


def test_the_model_counts_by_its_weights(conv_net, images):
    first = fingerprint_model(conv_net, conv_net, images)
    conv_net(images, training=True)
    assert fingerprint_model(conv_net, conv_net, images) == first
    twin = keras.models.clone_model(conv_net)
    twin.set_weights(conv_net.get_weights())
    assert fingerprint_model(twin, twin, images) == first
    twin.trainable = False
    assert fingerprint_model(twin, twin, images) == first
    conv_net.layers[-1].bias.assign([0.0, 0.0, 1.0])
    assert fingerprint_model(conv_net, conv_net, images) != first


def test_a_callable_counts_by_its_answers(conv_net, images):
    first = fingerprint_model(None, conv_net, images)
    assert fingerprint_model(None, lambda x: conv_net(x) + 1e-6, images)[:7] == first[:7]
    assert fingerprint_model(None, lambda x: conv_net(x) + 1.0, images) != first


def net(activation="relu", units=3):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(units, activation=activation), layers.Dense(2)]
    )


def test_what_plays_no_part():
    # Names and compile state.
    one, two = net(), net()
    two.compile("adam", "mse")
    assert one.layers[0].name != two.layers[0].name
    assert architecture_of(one) == architecture_of(two)

    # Frozen layers.
    model = net()
    before = architecture_of(model)
    assert '"trainable": true' in before
    model.layers[0].trainable = False
    assert architecture_of(model) == before
    model.trainable = False
    assert architecture_of(model) == before
    # The size of the first batch.
    found = []
    for size in (1, 3):
        model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
        model(keras.ops.ones((size, 4)))
        found.append(architecture_of(model))
    built = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    built.build((None, 4))
    assert found == [architecture_of(built)] * 2


def test_what_is_computed_counts():
    model = net()
    for other in (net("silu"), net(units=4), kj.with_smooth_activations(model)):
        assert architecture_of(other) != architecture_of(model)
    # Caches of 0.1.0 have the module that the activation was in then.
    assert "keras_jsigr.activations.swish" in architecture_of(net(kj.Swish(5.0)))


def test_a_hardened_model_computes_what_its_base_does(images, conv_net):
    robust = kj.harden(conv_net, epsilon=0.1, verbose=0)
    base = kj.unwrap(robust)
    assert fingerprint_model(robust, robust, images) == fingerprint_model(base, base, images)


def test_layers_that_are_called_as_activations_are():
    def named(activation):
        shape, end = keras.Input((4,)), layers.Dense(2)
        named = layers.Activation(activation, name=activation)
        return keras.Sequential([shape, named, end])

    assert architecture_of(named("relu")) != architecture_of(named("tanh"))
    assert architecture_of(named("relu")) == architecture_of(named("relu"))


def test_two_orders_of_the_inputs_are_two_models():
    def model(order):
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        first, second = (a, b) if order else (b, a)
        return keras.Model([a, b], layers.Subtract()([first, second]))

    assert architecture_of(model(True)) == architecture_of(model(True))
    assert architecture_of(model(True)) != architecture_of(model(False))


class Bare(keras.Model):
    """Without a configuration."""

    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclass_without_configuration_gives_its_name():
    assert architecture_of(Bare(2)) == "Bare"
