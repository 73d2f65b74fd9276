"""The names that TensorFlow does not export are there."""

import os
import subprocess
import sys

import pytest

from keras_jsigr.core import tensorflow_private as module

ASK = "from keras_jsigr.core.tensorflow_private import onednn_is_used as f; print(f())"


def test_the_name_is_there():
    from tensorflow.python.util import _pywrap_util_port

    assert module.onednn_is_used() is _pywrap_util_port.IsMklEnabled()


def test_without_the_name_the_answer_is_no(monkeypatch):
    from tensorflow.python.util import _pywrap_util_port

    monkeypatch.delattr(_pywrap_util_port, "IsMklEnabled")
    assert module.onednn_is_used.__wrapped__() is False


@pytest.mark.slow
def test_it_can_be_switched_off():
    env = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    run = subprocess.run(
        [sys.executable, "-c", ASK], env=env, capture_output=True, check=True
    )
    assert run.stdout.split() == [b"False"]
