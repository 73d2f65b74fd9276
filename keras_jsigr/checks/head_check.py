"""A head whose outputs are regularized cannot be seen behind."""

from __future__ import annotations

from keras_jsigr.core.heads import Head


def check_head(head: Head, classes: int) -> None:
    """Refuse a softmax or sigmoid layer with an activity regularizer, or of one class.

    A training step asks the layer for logits, and Keras would regularize those. The
    softmax of a single unit is 1, whatever the input.

    Args:
        head: Of the model.
        classes: The number of its logits.

    Raises:
        ValueError: If the layer has one, or if it is such a softmax.

    Example:
        >>> import keras
        >>> from keras_jsigr.checks.head_check import check_head
        >>> from keras_jsigr.core.heads import Head
        >>> check_head(Head("softmax", keras.layers.Softmax()), 10)
    """
    if head.kind == "softmax" and classes == 1:
        raise ValueError(
            "The softmax of one unit is always 1: got one output, expected two classes "
            "or more. Use activation='sigmoid' for a single unit."
        )
    if head.layer is not None and head.layer.activity_regularizer is not None:
        kind = type(head.layer.activity_regularizer).__name__
        raise ValueError(
            f"The head `{head.layer.name}` regularizes its probabilities: got "
            f"activity_regularizer={kind}, expected None. Training sees the logits "
            "there: add the term to the loss given to `compile`."
        )
