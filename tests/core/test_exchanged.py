"""A function is exchanged inside blocks, and back behind the last."""

import threading
from types import SimpleNamespace

import pytest

from keras_jsigr.core.exchanged import Exchanged


def test_blocks_nest():
    module = SimpleNamespace(f=lambda x: x)
    before, made = module.f, []

    def replacement(original):
        made.append(original)
        return lambda x: original(x) + 1

    exchanged = Exchanged(module, "f", replacement)
    with exchanged.block(), exchanged.block():
        assert module.f(1) == 2
    assert module.f is before
    with pytest.raises(RuntimeError), exchanged.block():
        raise RuntimeError
    assert module.f is before
    assert made == [before, before]


def test_what_another_put_there_is_put_back():
    module = SimpleNamespace(f="first")
    exchanged = Exchanged(module, "f", lambda _: "ours")
    module.f = "second"
    with exchanged.block():
        assert module.f == "ours"
    assert module.f == "second"


def test_threads_that_overlap():
    module = SimpleNamespace(f="theirs")
    exchanged = Exchanged(module, "f", lambda _: "ours")
    inside, leave = threading.Event(), threading.Event()

    def longer():
        with exchanged.block():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=longer)
    with exchanged.block():
        thread.start()
        assert inside.wait(10)
    assert module.f == "ours"
    leave.set()
    thread.join()
    assert module.f == "theirs"
