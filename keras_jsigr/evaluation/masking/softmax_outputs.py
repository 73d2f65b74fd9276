"""Rule: the model hands out probabilities where attacks expect logits."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.heads import head_of
from keras_jsigr.core.logits import one_output
from keras_jsigr.core.probabilities import saturates
from keras_jsigr.evaluation.masking.subject import Subject
from keras_jsigr.evaluation.masking.verdict import Verdict, percent

_EXAMPLES = 128
# Rows of float32 or float16 probabilities sum to one to this.
_ROUNDING = 1e-2


def softmax_outputs(subject: Subject) -> Verdict:
    """Ask whether the outputs are probabilities, and whether we see behind them.

    A softmax in front of the softmax of the loss flattens the gradient, and rounds
    confident rows to exactly zero and one. Of a Keras model the head is taken off; of a
    plain callable only the logarithm of its outputs can be taken.

    Args:
        subject: The model under diagnosis.

    Returns:
        The verdict.

    Reference:
        arXiv 2003.01690 (checks of the reference implementation).
    """
    model = subject.model
    x = tf.convert_to_tensor(subject.x[:_EXAMPLES])
    if isinstance(model, keras.Model):
        kind = head_of(model, x).kind
        says = f"The model ends in a {kind}; the attacks see the logits behind it."
        if kind == "linear":
            says = "The model returns logits."
        return Verdict(False, says, {"share": 0.0, "saturated": 0.0})
    outputs = one_output(model(x))
    p = np.asarray(tf.cast(outputs, tf.float32))
    bounded = ((p >= 0.0) & (p <= 1.0)).all(axis=-1)
    if p.shape[-1] == 1:
        rows = np.full(len(p), saturates(lambda x: one_output(model(x)), x, outputs))
        saturated = (p == 0.0).any(-1) | (p == 1.0).any(-1)
    else:
        rows = bounded & (np.abs(p.sum(-1) - 1.0) < _ROUNDING)
        saturated = (p == 1.0).any(axis=-1)
    figures = {
        "share": float(rows.mean()),
        "saturated": float((rows & saturated).mean()),
    }
    if not rows.all():
        return Verdict(False, "The callable returns logits.", figures)
    says = (
        f"The callable returns probabilities, not logits; {percent(saturated.mean())} "
        "of the rows are exactly zero or one, which leaves no gradient."
    )
    advice = (
        "Return the logits, or pass the Keras model itself: attacks see behind its "
        "softmax."
    )
    return Verdict(True, says, figures, advice)
