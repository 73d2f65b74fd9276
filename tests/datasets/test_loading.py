"""The choice of the source, and the refusals, which never wait for a network."""

import socket
import time

import numpy as np
import pytest

import keras_jsigr
from keras_jsigr.datasets import Dataset, load


@pytest.fixture(autouse=True)
def _no_network_no_home(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def test_the_default_is_the_sample(capsys):
    data = load()
    (x_train, y_train), (x_test, y_test) = data.as_tuples()
    assert (len(x_train), len(y_train), len(x_test), len(y_test)) == (
        12000,
        12000,
        2000,
        2000,
    )
    assert capsys.readouterr().out == (
        "fashion_mnist: 12,000 training and 2,000 test images from the sample "
        "embedded in keras_jsigr\n"
    )
    assert "28x28x1, 10 classes" in repr(data)


def test_quiet(capsys):
    load(verbose=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("source", ["auto", "tfds"])
@pytest.mark.parametrize("name", ["cifar10", "no_such_set", "fashion_mnist/9.9.9"])
def test_a_missing_set_fails_at_once_and_says_how_to_get_it(name, source, tmp_path):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"tfds build {name}") as caught:
        load(name, source=source)
    assert time.perf_counter() - start < 2
    assert str(tmp_path / "tfds") in str(caught.value)
    assert ("IDX" in str(caught.value)) == (source == "auto")


def test_a_folder_without_data_is_named(tmp_path):
    with pytest.raises(ValueError, match="not on this machine") as caught:
        load("fashion_mnist", data_dir=tmp_path)
    assert str(caught.value).count(str(tmp_path)) == 2


@pytest.mark.parametrize("name", ["../secrets", "/etc", "a//b", "", "mnist/../x", "."])
def test_a_path_is_no_name(name):
    with pytest.raises(ValueError, match="data_dir"):
        load(name)


def test_arguments_of_wrong_kind():
    with pytest.raises(TypeError, match="got ndarray"):
        load(np.zeros(3))
    with pytest.raises(ValueError, match="got 'web', expected one of"):
        load(source="web")
    with pytest.raises(ValueError, match="only that one is embedded"):
        load("mnist", source="sample")
    with pytest.raises(ValueError, match="only that one is embedded"):
        load(source="sample", data_dir="somewhere")


def test_labels_outside_the_names_are_refused():
    x = np.zeros((2, 3, 3, 1), np.float32)
    with pytest.raises(ValueError, match="labels from -1 to 0"):
        Dataset(
            x_train=x,
            y_train=np.array([0, -1]),
            x_test=x,
            y_test=np.array([0, 1]),
            class_names=("a", "b"),
            name="toys",
            source="here",
        )


def test_the_package_carries_types():
    from importlib import resources

    assert (resources.files(keras_jsigr) / "py.typed").is_file()


def test_a_dash_is_an_underscore():
    data = load("fashion-mnist", source="sample", verbose=False)
    assert data.class_names[0] == "T-shirt/top"
