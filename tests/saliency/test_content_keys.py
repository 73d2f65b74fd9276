import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.saliency import content_keys

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


def test_equals_an_independent_implementation(rng):
    x = rng.normal(size=(5, 4, 3)).astype("float32")
    x[0, 0, 0], x[1] = -0.0, 0.0
    assert content_keys(x).numpy().tolist() == [python_key(row) for row in x]


def test_keys_never_change_between_releases():
    x = np.arange(6, dtype="float32").reshape(2, 3) / 7
    golden = [-2718415750374745450, -1548595345543846277]
    assert content_keys(x).numpy().tolist() == golden


@pytest.mark.parametrize("jit", [False, True])
def test_compiled_and_batch_independent(images, jit):
    x = images.copy()
    x[3, 0, 0, 0] = -0.0
    spec = tf.TensorSpec((None, 10, 8, 2), tf.float32)
    compiled = tf.function(content_keys, input_signature=[spec], jit_compile=jit)
    expected = content_keys(x).numpy()
    np.testing.assert_array_equal(compiled(x), expected)
    parts = [compiled(x[i : i + 3]) for i in range(0, 11, 3)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    x[3, 0, 0, 0] = 0.0
    np.testing.assert_array_equal(compiled(x), expected)


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
        tf.function(content_keys).get_concrete_function(spec)
