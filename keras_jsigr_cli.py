"""The console script `keras-jsigr`: loads the commands, and not the package.

Importing `keras_jsigr` imports TensorFlow, which takes seconds. Help, completion and errors
of usage need neither; the commands import both when they run.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any


def load() -> Any:
    """Load `keras_jsigr/cli.py` without running `keras_jsigr/__init__.py`."""
    package = importlib.util.find_spec("keras_jsigr")
    if package is None or package.origin is None:
        raise ImportError("keras_jsigr is not installed: run `pip install keras-jsigr`.")
    path = Path(package.origin).with_name("cli.py")
    spec = importlib.util.spec_from_file_location("keras_jsigr_commands", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"'{path}' cannot be loaded: reinstall keras-jsigr.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Run the command line."""
    load().main(prog_name="keras-jsigr")


if __name__ == "__main__":
    main()
