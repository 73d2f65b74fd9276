"""The wheel and the source distribution: built, installed and used outside of the repo."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

TOUR = """
import numpy as np, keras, keras_jsigr as kj
assert "site-packages" in kj.__file__, kj.__file__
net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
robust = kj.harden(net, 0.1, verbose=0)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
robust.compile("adam", loss)
data = kj.datasets.load("fashion_mnist", verbose=False)
x, y = data.x_train[:32, :8, :8], data.y_train[:32] % 3
robust.fit(x, y, epochs=1, verbose=0)
attacked = kj.attacks.PGD(steps=2, verbose=0)(robust, x, y)
print(float(abs(np.asarray(attacked) - x).max()))
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"{command}:\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build both of a copy without what earlier builds left."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    left = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=left)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return folder


def make_environment(folder: Path, wheel: Path, sees_ours: bool) -> Path:
    """Make an environment with the wheel; it may see the packages of this one."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = folder / "lib" / version / "site-packages"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"),
        *("--disable-pip-version-check", "--no-index", wheel),
        cwd=folder,
    )
    if sees_ours:
        (site / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return python


def test_wheel_is_complete_and_small(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "keras_jsigr"
    own = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    assert own <= names
    assert {"keras_jsigr/py.typed", "keras_jsigr/evaluation/render/templates/page.html"} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    assert wheel.stat().st_size < 8e6


def test_source_distribution_builds_the_same_wheel(built, tmp_path):
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", folder, cwd=tmp_path)
    (again,), (wheel,) = (folder / "dist").glob("*.whl"), built.glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def test_wheel_is_used_in_another_environment(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    python = make_environment(tmp_path / "env", wheel, sees_ours=True)
    moved = float(run(python, "-c", TOUR, cwd=tmp_path).stdout)
    assert moved == pytest.approx(0.1, abs=1e-5)


def test_without_tensorflow_one_sentence_says_what_to_install(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    python = make_environment(tmp_path / "env", wheel, sees_ours=False)
    done = subprocess.run(
        [python, "-c", "import keras_jsigr"], capture_output=True, text=True, check=False
    )
    assert done.returncode
    (last,) = [line for line in done.stderr.splitlines() if line.startswith("ImportError")]
    assert "pip install tensorflow-cpu" in last
    assert "pip install tensorflow`" in last
