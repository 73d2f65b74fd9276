"""What every source of data gives: arrays, names and where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Hold the training and test images of one classification task.

    Attributes:
        x_train: float32 images `(N, H, W, C)` in [0, 1].
        y_train: int64 labels `(N,)`, positions in `class_names`.
        x_test: float32 images `(M, H, W, C)` in [0, 1].
        y_test: int64 labels `(M,)`.
        class_names: One name per class.
        name: Name of the task, such as `"fashion_mnist"`.
        source: Where the images were read from, in words.

    Example:
        >>> from keras_jsigr import datasets
        >>> data = datasets.load("fashion_mnist", verbose=False)
        >>> (x_train, y_train), (x_test, y_test) = data.as_tuples()
        >>> x_train.shape, data.class_names[y_train[0]]
        ((12000, 28, 28, 1), 'Sandal')
    """

    x_train: FloatArray
    y_train: IntArray
    x_test: FloatArray
    y_test: IntArray
    class_names: tuple[str, ...]
    name: str
    source: str

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        self._check_split("training", self.x_train, self.y_train)
        self._check_split("test", self.x_test, self.y_test)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                f"{self.name}: got training images of shape {self.x_train.shape[1:]} "
                f"and test images of shape {self.x_test.shape[1:]}; expected one "
                "shape. Make both splits from the same data."
            )

    def _check_split(self, split: str, x: FloatArray, y: IntArray) -> None:
        if x.ndim != 4 or y.shape != x.shape[:1] or not len(x):
            raise ValueError(
                f"{self.name}: got {split} images of shape {x.shape} and labels of "
                f"shape {y.shape}; expected (N, H, W, C) and (N,) with N at least 1. "
                "Check that both files are of the same split."
            )
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= len(self.class_names):
            raise ValueError(
                f"{self.name}: got {split} labels from {low} to {high}; expected 0 to "
                f"{len(self.class_names) - 1}, one per class. Renumber the labels."
            )

    def as_tuples(
        self,
    ) -> tuple[tuple[FloatArray, IntArray], tuple[FloatArray, IntArray]]:
        """Return the arrays in the order of `keras.datasets`.

        Returns:
            `((x_train, y_train), (x_test, y_test))`.

        Example:
            >>> from keras_jsigr import datasets
            >>> data = datasets.load(verbose=False)
            >>> (x_train, y_train), (x_test, y_test) = data.as_tuples()
            >>> len(x_train), len(x_test)
            (12000, 2000)
        """
        return (self.x_train, self.y_train), (self.x_test, self.y_test)

    def __repr__(self) -> str:
        shape = "x".join(str(side) for side in self.x_train.shape[1:])
        return (
            f"<Dataset {self.name}: {len(self.x_train)} training and "
            f"{len(self.x_test)} test images {shape}, {len(self.class_names)} classes, "
            f"from {self.source}>"
        )


def to_unit_range(images: npt.NDArray[np.uint8]) -> FloatArray:
    """Scale 8-bit images to float32 in [0, 1].

    Args:
        images: uint8 array of any shape, 0 to 255.

    Returns:
        float32 array of the same shape, `images / 255`.

    Example:
        >>> import numpy as np
        >>> to_unit_range(np.array([0, 255], np.uint8))
        array([0., 1.], dtype=float32)
    """
    return np.divide(images, np.float32(255), dtype=np.float32)
