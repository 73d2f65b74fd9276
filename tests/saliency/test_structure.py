import ast
import inspect
from pathlib import Path

import keras_jsigr.saliency as saliency


def test_saliency_stands_on_core_alone():
    for file in Path(saliency.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and "keras_jsigr" in str(node.module):
                assert str(node.module).split(".")[1] in ("core", "saliency"), file


def test_public_names_exist_and_are_sorted():
    assert saliency.__all__ == sorted(saliency.__all__)
    for name in saliency.__all__:
        public = getattr(saliency, name)
        if inspect.isfunction(public) or inspect.isclass(public):
            assert public.__doc__
