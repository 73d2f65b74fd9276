"""Whether the map stays where the decision stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.activations.layer_tree import walk
from keras_jsigr.activations.relu import has_relu
from keras_jsigr.activations.smooth import with_smooth_activations
from keras_jsigr.attacks.balls.ball import BALLS
from keras_jsigr.attacks.calls.predictions import classified_rightly, predict_logits
from keras_jsigr.attacks.explanations.borrowed_curvature import BorrowedCurvature
from keras_jsigr.attacks.explanations.saliency_attack import SaliencyAttack
from keras_jsigr.attacks.search.rounding import round_towards, working_dtype
from keras_jsigr.core.finite_rows import finite_rows
from keras_jsigr.core.unwrapped import unwrapped
from keras_jsigr.evaluation.interpretability.column_program import ColumnProgram
from keras_jsigr.evaluation.interpretability.figures import figure_of
from keras_jsigr.evaluation.interpretability.kept_label_pgd import KeptLabelPGD
from keras_jsigr.evaluation.interpretability.subject import Subject
from keras_jsigr.evaluation.saliency_records import SaliencyFigure
from keras_jsigr.saliency.metrics.rank_correlation import rank_correlation
from keras_jsigr.saliency.metrics.ssim import ssim
from keras_jsigr.saliency.metrics.top_k_intersection import top_k_intersection

_HALVINGS = 40  # of the interval that holds a scale: to twelve digits

GROUP = "Stability"
Points = npt.NDArray[Any]


def stability(
    subject: Subject, *, condition: str, perturb: Callable[[Subject], Points]
) -> list[SaliencyFigure]:
    """Compare the maps at the inputs with those at perturbed inputs of the same class.

    Args:
        subject: The model and its maps.
        condition: What the perturbation is called.
        perturb: Makes the perturbed inputs.

    Returns:
        Top-k intersection, rank correlation and, for images, SSIM, over the examples
        that keep their class; and how far these are moved.
    """
    task = subject.task
    points = perturb(subject)
    logits = predict_logits(subject.model, points, task.batch_size)
    changes = (points - subject.x).reshape(len(points), -1)
    used = classified_rightly(logits, subject.y)
    if perturb is attacked_decision:
        # Where already the first step lost the class, there is nothing to compare.
        used &= changes.any(axis=1)
    metrics: dict[str, Any] = {
        "Top-k intersection": lambda a, b: top_k_intersection(a, b, top=task.top),
        "Rank correlation": rank_correlation,
    }
    if subject.maps.ndim == 3:
        metrics["SSIM"] = ssim
    program = ColumnProgram(
        lambda a, b: tf.stack([metric(a, b) for metric in metrics.values()], axis=1),
        task.batch_size,
    )
    moved = np.asarray(subject.explain(points, subject.y))
    found = program(subject.maps, moved)
    known = subject.finite & finite_rows(moved)
    figures = [
        figure_of(
            values, GROUP, name, condition, better="higher", used=used, known=known
        )
        for name, values in zip(metrics, found.T, strict=True)
    ]
    order = {"linf": np.inf, "l2": 2, "l1": 1}[task.norm]
    lengths = np.linalg.norm(changes.astype(np.float64), order, axis=1)
    name = "Length of the perturbation"
    return [*figures, figure_of(lengths, GROUP, name, condition, used=used)]


def uniform_noise(subject: Subject) -> Points:
    """Draw a point of the ball per example.

    Args:
        subject: The examples and the threat model.

    Returns:
        Points like `x`.
    """
    task, x = subject.task, tf.convert_to_tensor(subject.x)
    origin = tf.cast(x, working_dtype(x.dtype))
    ball = BALLS[task.norm](origin, task.epsilon, task.input_range)
    drawn = ball.sample(tf.constant([task.seed, 2]))
    points: Points = round_towards(drawn, origin, x.dtype).numpy()
    return points


def gaussian_noise(subject: Subject) -> Points:
    """Add Gaussian noise as long, in the L2 norm, as the uniform noise.

    Both lengths are those after clipping to the range; where none is long enough, the
    noise is as long as the range allows.

    Args:
        subject: The examples and the threat model.

    Returns:
        Points like `x`, in the range; not bound to the ball.
    """
    task, x = subject.task, subject.x.astype(np.float64)
    noise = tf.random.stateless_normal(x.shape, (task.seed, 3), dtype=x.dtype).numpy()

    def length(points: Any) -> Any:
        axes = tuple(range(1, x.ndim))
        return np.sqrt(np.sum(np.square(points - x), axes, keepdims=True))

    def moved(scale: Any) -> Any:
        return (x + scale * noise).clip(*task.input_range)

    wanted = length(uniform_noise(subject).astype(np.float64))
    # The length grows with the scale: halve the interval that holds the right one.
    low, high = (
        np.zeros_like(wanted),
        64.0 * wanted / np.maximum(length(x + noise), 1e-12),
    )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        short = length(moved(middle)) < wanted
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    points: Points = moved(low).astype(subject.x.dtype)
    return points


def attacked_decision(subject: Subject) -> Points:
    """Attack the decision by PGD as far as the class is kept.

    Args:
        subject: The examples and the threat model.

    Returns:
        Points like `x`.
    """
    return _attacked(KeptLabelPGD, subject, subject.model, subject.y)


def attacked_map(subject: Subject) -> Points:
    """Attack the gradient map and keep the class.

    Args:
        subject: The examples and the threat model.

    Returns:
        Points like `x`.
    """
    return _attacked(
        SaliencyAttack, subject, _curved(subject.model), None, top=subject.task.top
    )


def _attacked(kind: Any, subject: Subject, model: Any, y: Any, **more: Any) -> Points:
    task = subject.task
    attack = kind(
        epsilon=task.epsilon,
        norm=task.norm,
        input_range=task.input_range,
        steps=task.attack_steps,
        batch_size=task.batch_size,
        seed=task.seed,
        verbose=0,
        **more,
    )
    points: Points = attack(model, subject.x, y)
    return points


def _curved(model: Any) -> Any:
    """Give a ReLU network the second derivatives that attacking its map needs."""
    base = unwrapped(model)
    if not isinstance(base, keras.Model) or not any(map(has_relu, walk(base))):
        return model
    return BorrowedCurvature(model, with_smooth_activations(base, "softplus"))
