import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.saliency import MapTable, PerturbationCache

# Keras' own saving and predicting; the command line's `-W error` beats the settings.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture
def cache(conv_net, images):
    return PerturbationCache.build(conv_net, images, grid=2, verbose=0)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_modes(cache, images, rng, mode):
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


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_policies_leave_it_alone(cache, images, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        table = MapTable.from_cache(cache)
        maps, found = table(tf.constant(images))
        again = MapTable.from_config(table.get_config())
    finally:
        keras.config.set_dtype_policy(before)
    assert found.numpy().all()
    assert maps.dtype == tf.float32
    assert table.codes.dtype == "uint8"
    assert again.compute_dtype == "float32"


def test_training_data_is_found_through_fit(conv_net, images):
    for dtype in ("float32", "float64", "uint8"):
        x = (images * 250).astype(dtype)
        cache = PerturbationCache.build(conv_net, x, grid=2, verbose=0)
        hits = []

        class Model(keras.Model):
            def __init__(self, table, hits):
                super().__init__()
                self.table = table
                self.dense = keras.layers.Dense(1)
                self.hits = hits

            def call(self, x):
                return self.dense(keras.ops.reshape(x, (-1, 160)))

            def train_step(self, data):
                found = self.table(data[0])[1]
                return {"hit": tf.reduce_mean(tf.cast(found, tf.float32))}

        for policy in ("float32", "mixed_float16"):
            keras.config.set_dtype_policy(policy)
            try:
                model = Model(MapTable.from_cache(cache), hits)
                model.compile("sgd", "mse")
                log = model.fit(x, np.zeros(11), batch_size=4, epochs=2, verbose=0)
            finally:
                keras.config.set_dtype_policy("float32")
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


def test_error_messages(cache, conv_net, images):
    with pytest.raises(ValueError, match="positive number of rows"):
        MapTable(0, cache.bank)
    table = MapTable.from_cache(cache)
    fewer = PerturbationCache.build(conv_net, images[:5], grid=2, verbose=0)
    with pytest.raises(ValueError, match="Got a cache of 5 rows"):
        table.assign(fewer)
    finer = PerturbationCache.build(conv_net, images, grid=3, verbose=0)
    with pytest.raises(ValueError, match="make a new table"):
        table.assign(finer)
