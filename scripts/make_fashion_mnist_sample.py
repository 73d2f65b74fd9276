"""Make the Fashion-MNIST sample that ships inside the package.

    python scripts/make_fashion_mnist_sample.py --source DIR \
        --out keras_jsigr/data/fashion_mnist

DIR holds the four official files (``train-images-idx3-ubyte.gz`` and so on), for
example the folder that Debian's package dataset-fashion-mnist installs. A seeded
draw takes equally many images of each class, the result is shuffled with the same
seed and stored as lossless 8-bit PNG mosaics of 1,000 images. The pixels and the
labels depend on the official files and the seed alone; the bytes of the PNG files
also on the versions of Pillow and zlib.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SEED = 2207
PER_CLASS = {"train": 1200, "test": 200}
OFFICIAL = {"train": "train", "test": "t10k"}
CLASSES = 10
ROWS, COLUMNS, SIDE = 25, 40, 28

Bytes = npt.NDArray[np.uint8]


def read_split(source: Path, prefix: str) -> tuple[Bytes, Bytes]:
    """Read one official split: images (N, 28, 28) and labels (N,), both uint8."""
    images = gzip.decompress((source / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((source / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    return pixels, np.frombuffer(labels, np.uint8, offset=8)


def choose(labels: Bytes, per_class: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw `per_class` positions of each class, then shuffle them all."""
    # MT19937 through RandomState: NumPy promises its stream never changes.
    random = np.random.RandomState(seed)
    drawn = [
        random.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(CLASSES)
    ]
    return random.permutation(np.concatenate(drawn)).astype(np.int64)


def to_png(images: Bytes) -> bytes:
    """Encode 1,000 images as one mosaic, left to right, then top to bottom."""
    tiles = images.reshape(ROWS, COLUMNS, SIDE, SIDE).transpose(0, 2, 1, 3)
    mosaic = np.ascontiguousarray(tiles.reshape(ROWS * SIDE, COLUMNS * SIDE))
    buffer = io.BytesIO()
    Image.fromarray(mosaic).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def to_npy(array: npt.NDArray[np.generic]) -> bytes:
    """Encode an array in NumPy's own format, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def make_files(source: Path, seed: int) -> tuple[dict[str, bytes], dict[str, object]]:
    """Make every data file in memory, and the description of the splits."""
    files: dict[str, bytes] = {}
    splits: dict[str, object] = {}
    for split, per_class in PER_CLASS.items():
        pixels, labels = read_split(source, OFFICIAL[split])
        order = choose(labels, per_class, seed)
        images, block = pixels[order], ROWS * COLUMNS
        mosaics = [f"{split}-{i:02d}.png" for i in range(len(images) // block)]
        for i, name in enumerate(mosaics):
            files[name] = to_png(images[i * block : (i + 1) * block])
        files[f"{split}-labels.npy"] = to_npy(labels[order])
        # Positions in the official files, so that anybody can check the pixels.
        files[f"{split}-index.npy"] = to_npy(order.astype("<u2"))
        splits[split] = {
            "count": len(images),
            "per_class": per_class,
            "mosaics": mosaics,
            "pixels_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
        }
    return files, splits


def main() -> None:
    """Read the official files, write the sample and its manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()

    files, splits = make_files(options.source, options.seed)
    manifest = {
        "name": "fashion_mnist",
        "seed": options.seed,
        "image_shape": [SIDE, SIDE, 1],
        "mosaic": {"rows": ROWS, "columns": COLUMNS},
        "splits": splits,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    files["manifest.json"] = (json.dumps(manifest, indent=2) + "\n").encode()

    options.out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        temporary = options.out / f".{name}.tmp"
        temporary.write_bytes(data)
        temporary.replace(options.out / name)
    total = sum(map(len, files.values()))
    print(f"wrote {len(files)} files, {total / 2**20:.2f} MiB, to {options.out}")


if __name__ == "__main__":
    main()
