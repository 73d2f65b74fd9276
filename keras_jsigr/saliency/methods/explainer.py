"""A saliency method compiled for one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_jsigr.saliency.batched import BatchedExplainer, Core

if TYPE_CHECKING:
    from keras_jsigr.saliency.methods.method import SaliencyMethod


class Explainer(BatchedExplainer):
    """Explain any number of examples, `f(x, targets=None) -> maps`.

    It follows the model's weights, and traces once whatever the number of examples.
    Made by `keras_jsigr.saliency.explainer`.

    Attributes:
        method: The method, with all that it found out about the model filled in, such
            as the layer that Grad-CAM looks at.

    Args:
        method: The method.
        core: What it computes, see `BatchedExplainer`.
        batch_size: Examples per compiled call, at least 1.
        classes: Of the model, to check class indices against; `None` checks nothing.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explainer
        >>> explainer(lambda x: x, np.ones((1, 2)), method="smoothgrad").method.samples
        50
    """

    def __init__(
        self,
        method: SaliencyMethod,
        core: Core,
        batch_size: int = 128,
        classes: int | None = None,
    ) -> None:
        super().__init__(core, batch_size, classes)
        self.method = method
