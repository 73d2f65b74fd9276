"""Maps and caches of datasets: those of the same examples as arrays, in one pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.core.files import read_cache_file
from keras_jsigr.saliency import METHODS, PerturbationCache, explain, explainer
from keras_jsigr.saliency.cache import _BY_KEYS, keys_of
from keras_jsigr.saliency.fingerprint import fingerprint_array

FAST = {
    "smoothgrad": {"samples": 2},
    "vargrad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "grad_cam": {"verbose": 0},
    "perturbation": {"grid": 2},
    "sarfa": {"grid": 2},
    "occlusion": {"patch": 4},
    "rise": {"samples": 3, "grid": 2},
}
SMALL = {"grid": 2, "batch_size": 4, "verbose": 0}


class Batches(keras.utils.PyDataset):
    """Batches of three, each read once; one of them may be broken."""

    def __init__(self, x, y, broken=None, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.broken, self.read = x, y, broken, []

    def __len__(self):
        return -(-len(self.x) // 3)

    def __getitem__(self, number):
        assert number not in self.read
        self.read.append(number)
        if number == self.broken:
            raise OSError("disk gone")
        rows = slice(3 * number, 3 * number + 3)
        return self.x[rows], self.y[rows]


def dataset(*columns, size=3):
    return tf.data.Dataset.from_tensor_slices(columns if columns[1:] else columns[0]).batch(size)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_maps_as_of_arrays(method, conv_net, images, labels):
    settings = {"method": method, "batch_size": 4, **FAST.get(method, {})}
    wanted = explain(conv_net, images, labels, **settings)
    source = Batches(images, labels, workers=2)
    found = explain(conv_net, source, **settings)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, wanted)
    assert sorted(source.read) == [0, 1, 2, 3]


def test_labels_are_explained_and_else_the_decision(conv_net, images, labels):
    labels = (labels + 1) % 3
    chosen = explain(conv_net, dataset(images, labels))
    np.testing.assert_array_equal(chosen, explain(conv_net, images, labels))
    own = explain(conv_net, dataset(images))
    np.testing.assert_array_equal(own, explain(conv_net, images))
    assert np.abs(own - chosen).max() > 1e-4
    named = tf.data.Dataset.from_tensor_slices(({"image": images}, np.eye(3)[labels])).batch(5)
    np.testing.assert_array_equal(explain(conv_net, named), chosen)
    kept = explainer(conv_net, images)
    np.testing.assert_array_equal(kept(dataset(images, labels)), chosen)
    for call in (explain, lambda model, *data: kept(*data)):
        with pytest.raises(ValueError, match="expected y=None"):
            call(conv_net, dataset(images), labels)
    with pytest.raises(ValueError, match="out of range: got 6"):
        explain(conv_net, dataset(images, labels + 5))


def test_a_dataset_has_the_cache_of_its_arrays(conv_net, images, labels, tmp_path, capsys):
    path = tmp_path / "maps.npz"
    images[7], labels[7] = images[2], labels[2]
    wanted = PerturbationCache.build(conv_net, images, labels, path=path, **SMALL)
    source = Batches(images, labels, workers=2)
    found = PerturbationCache.build(conv_net, source, **SMALL)
    assert sorted(source.read) == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.keys, wanted.keys)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    assert found.identity == wanted.identity
    # And finds it again, in any order.
    before = path.stat().st_mtime_ns
    for data in (
        (images, labels),
        (dataset(images, labels),),
        (dataset(images, labels, size=1).shuffle(11),),
    ):
        PerturbationCache.build(conv_net, *data, path=path, **{**SMALL, "verbose": 1})
        assert "Loaded the maps of 10 examples" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    for other, name in (
        (dataset(images[:6], labels[:6]), "data"),
        (dataset(images), "labels"),
        (dataset(images, 2 - labels), "labels"),
        (dataset(images, labels[::-1]), "labels"),
    ):
        with pytest.raises(ValueError, match=f"differs in {name}"):
            PerturbationCache.build(conv_net, other, path=path, **SMALL)


def test_caches_of_earlier_versions_are_found(conv_net, images, tmp_path, capsys):
    """They know their data by a hash of the bytes, which needs all of them at once."""
    path = tmp_path / "maps.npz"
    cache = PerturbationCache.build(conv_net, images, path=path, **SMALL)
    assert cache.identity["data"].startswith(_BY_KEYS)
    cache.identity["data"] = fingerprint_array(images)
    cache.save(path)
    PerturbationCache.build(conv_net, images, path=path, **{**SMALL, "verbose": 1})
    assert "Loaded the maps of 11 examples" in capsys.readouterr().out
    with pytest.raises(ValueError, match="differs in data"):
        PerturbationCache.build(conv_net, images[::-1], path=path, **SMALL)


def test_a_broken_source_costs_what_came_after_it(conv_net, images, labels, tmp_path, capsys):
    path, partial = tmp_path / "maps.npz", tmp_path / "maps.npz.partial"
    loud = {**SMALL, "verbose": 1}
    whole = PerturbationCache.build(conv_net, images, labels, **SMALL)
    images, labels = np.concatenate([images] * 3), np.concatenate([labels] * 3)
    with pytest.raises(OSError, match="disk gone"):
        PerturbationCache.build(conv_net, Batches(images, labels, broken=8), path=path, **SMALL)
    # It is read in blocks of at least 16 examples; broken earlier, nothing is lost.
    assert len(read_cache_file(partial)[1]["codes"]) == 16
    with pytest.raises(OSError, match="disk gone"):
        PerturbationCache.build(conv_net, Batches(images, labels, broken=3), path=path, **SMALL)
    assert len(read_cache_file(partial)[1]["codes"]) == 16
    cache = PerturbationCache.build(conv_net, Batches(images, labels), path=path, **loud)
    assert "Going on with 16 examples" in capsys.readouterr().out
    np.testing.assert_array_equal(cache.codes, whole.codes)
    assert not partial.exists()


def test_a_partial_cache_of_other_data_is_not_used(conv_net, images, labels, tmp_path, capsys):
    path = tmp_path / "maps.npz"
    many, classes = np.concatenate([images] * 3), np.concatenate([labels] * 3)
    with pytest.raises(OSError, match="disk gone"):
        PerturbationCache.build(conv_net, Batches(many, classes, broken=8), path=path, **SMALL)
    data = (many[::-1].copy(), classes)
    cache = PerturbationCache.build(
        conv_net, Batches(*data), path=path, **{**SMALL, "verbose": 1, "score": "squared_logits"}
    )
    assert "Going on" not in capsys.readouterr().out
    fresh = PerturbationCache.build(conv_net, *data, **SMALL)
    np.testing.assert_array_equal(cache.codes, fresh.codes)


def test_two_keys_tell_examples_apart(images):
    class Block:
        x, y = images, None

    keys = keys_of(Block)
    assert set(keys) == {"keys", "twins"}
    assert len(np.unique(np.concatenate(list(keys.values())))) == 22
