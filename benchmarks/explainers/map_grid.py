"""A picture of the maps of several networks, a row each, of the same images."""

from __future__ import annotations

import io
from pathlib import Path

import keras
import numpy as np
from networks import correct

import keras_jsigr as kj
from keras_jsigr.saliency import SaliencyMethod


def draw(
    networks: dict[str, keras.Model],
    x: np.ndarray,
    y: np.ndarray,
    method: SaliencyMethod,
    path: Path,
) -> None:
    """Draw one image of every class and the networks' maps of it.

    It is the first of its class that every network classifies rightly.

    Args:
        networks: By the name that stands before their rows.
        x: Images in 0..1, `(N, H, W, C)`.
        y: Their labels, `(N,)`.
        method: Makes the maps, of the true class.
        path: The PNG file.
    """
    import matplotlib
    from PIL import Image

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    right = np.all([correct(net, x, y) for net in networks.values()], axis=0)
    classes = [label for label in np.unique(y) if right[y == label].any()]
    chosen = [np.flatnonzero(right & (y == label))[0] for label in classes]
    x, y = x[chosen], y[chosen]
    rows = {"image": x.squeeze(-1) if x.shape[-1] == 1 else x} | {
        name: kj.saliency.explain(net, x, y, method=method) for name, net in networks.items()
    }
    shape = (len(rows), len(x))
    label = max(map(len, rows)) * 0.085
    size = (0.95 * len(x) + label, 0.95 * len(rows))
    figure, grid = plt.subplots(*shape, figsize=size)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
        for axis, image in zip(axes, images, strict=True):
            # One bright pixel would leave the rest of a map dark.
            top = 1.0 if name == "image" else np.quantile(image, 0.99)
            colours = "gray" if name == "image" else "magma"
            axis.imshow(image, cmap=colours, vmin=0, vmax=top)
            axis.set(xticks=[], yticks=[], frame_on=False)
    figure.tight_layout(pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    plt.close(figure)
    # Maps are noise to a compressor: a palette makes a fifth of it. This one leaves
    # room for the colours of the images.
    palette = Image.Quantize.MAXCOVERAGE
    picture = Image.open(drawn).convert("RGB").quantize(256, palette)
    picture.save(path, optimize=True)
