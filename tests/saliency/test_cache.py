import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.saliency import (
    PerturbationCache,
    normalize_coefficients,
    perturbation_coefficients,
    perturbation_map,
)
from keras_jsigr.saliency import build_codes as module_build_codes
from keras_jsigr.saliency.sorted_rows import sorted_rows

QUIET = {"verbose": 0, "grid": 2, "batch_size": 4}


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


def test_it_tells_what_it_holds(conv_net, images):
    cache = PerturbationCache.build(conv_net, images, grid=3, verbose=0)
    size = images.shape[1:3]
    assert repr(cache) == f"PerturbationCache({len(images)} maps {size} of 9 masks)"


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
    again = PerturbationCache.build(
        conv_net, images, path=path, grid=2, batch_size=7, verbose=1
    )
    assert path.stat().st_mtime_ns == before
    assert again.size == 11
    assert capsys.readouterr().out.startswith("Loaded the maps of 11 examples")


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


SMALL = {"grid": 2, "batch_size": 4}


def test_progress_is_saved_as_time_goes(images, tmp_path, monkeypatch):
    saves = []
    real = module_build_codes.write_cache_file

    def spy(path, header, arrays):
        saves.append(len(arrays["codes"]))
        real(path, header, arrays)

    monkeypatch.setattr(module_build_codes, "write_cache_file", spy)
    monkeypatch.setattr(module_build_codes, "_SECONDS_BETWEEN_SAVES", 0.0)
    PerturbationCache.build(Teacher(), images, path=tmp_path / "c.npz", **QUIET)
    assert saves == [4, 8, 11]


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
    cache = PerturbationCache.build(model, x, grid=2, batch_size=4)
    assert "9/9" in capsys.readouterr().out
    assert cache.lookup(x.astype("float32"))[1].all()


def test_error_messages(conv_net, images):
    with pytest.raises(ValueError, match="Got no examples"):
        PerturbationCache.build(conv_net, images[:0], **QUIET)
    with pytest.raises(ValueError, match="11 examples and 3 labels"):
        PerturbationCache.build(conv_net, images, [0, 1, 2], **QUIET)
    with pytest.raises(ValueError, match="teacher's outputs"):
        PerturbationCache.build(
            lambda x: tf.reduce_sum(x, (1, 2)) / 0.0, images, **QUIET
        )


@pytest.mark.parametrize("score", ["squared_logits", "probability_drop"])
def test_examples_that_the_loss_leaves_out(conv_net, images, score):
    y = np.arange(len(images)) % 3
    conv_net.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=-1
        )
    )
    whole = PerturbationCache.build(conv_net, images, y, score=score, **QUIET)
    y[:2] = -1
    cache = PerturbationCache.build(conv_net, images, y, score=score, **QUIET)
    for part in (images[2:], *([images] if score == "squared_logits" else [])):
        np.testing.assert_array_equal(cache.maps(part), whole.maps(part))
    assert np.isfinite(cache.maps(images)).all()
    with pytest.raises(ValueError, match="got 7"):
        PerturbationCache.build(conv_net, images, [*y[1:], 7], score=score, **QUIET)
