"""Attacks of cleverhans, traced without hidden state; cleverhans stays as it is."""

from __future__ import annotations

import importlib
import math
import types
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Self

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import Attack, AttackContext
from keras_jsigr.attacks.gradient_attack import zero_nonfinite
from keras_jsigr.attacks.losses import LossName
from keras_jsigr.core import arguments
from keras_jsigr.core.random import fold_in


def cleverhans_attack(method: str) -> Any:
    """Import an attack of cleverhans."""
    try:
        module = importlib.import_module(f"cleverhans.tf2.attacks.{method}")
    except ImportError as error:
        raise ImportError(
            "CleverHansAttack needs cleverhans, which could not be imported: "
            f"{error}. Run pip install cleverhans."
        ) from error
    return getattr(module, method)


def private_copy(method: str, start: tf.Tensor) -> tuple[Any, list[tf.Tensor]]:
    """Copy an attack of cleverhans, with a given random start and no NaN in gradients.

    The list is filled while the copy is traced: per step, where the gradient was finite.
    """
    healthy: list[tf.Tensor] = []
    plain = cleverhans_attack("fast_gradient_method").__globals__["compute_gradient"]

    def compute_gradient(*args: Any) -> tf.Tensor:
        # Without its tf.function, which would keep the model for ever.
        gradient, whole = zero_nonfinite(plain.python_function(*args))
        healthy.append(whole)
        return gradient

    def copied(name: str, **called: Any) -> Any:
        f = cleverhans_attack(name)
        names = {**f.__globals__, **called}
        copy = types.FunctionType(f.__code__, names, name, f.__defaults__, f.__closure__)
        copy.__kwdefaults__ = f.__kwdefaults__
        return copy

    one = copied("fast_gradient_method", compute_gradient=compute_gradient)
    many = copied(
        "projected_gradient_descent",
        fast_gradient_method=one,
        random_lp_vector=lambda *_, **__: start,
    )
    copies = {
        "fast_gradient_method": one,
        "projected_gradient_descent": many,
        "basic_iterative_method": copied("basic_iterative_method", projected_gradient_descent=many),
        "momentum_iterative_method": copied(
            "momentum_iterative_method", compute_gradient=compute_gradient
        ),
    }
    return copies[method], healthy


_NAMES = {
    "fast_gradient_method": "FGM",
    "projected_gradient_descent": "PGD",
    "basic_iterative_method": "BIM",
    "momentum_iterative_method": "MIM",
}

_REFUSED = {
    "carlini_wagner_l2": "it calls `optimizer.variables()`, which Keras 3 has not, and "
    "fails on colour images. Use `CarliniWagner`",
    "spsa": "its optimizer passes `lr`, which Keras 3 refuses. Use `SPSA`",
    "madry_et_al": "it is projected_gradient_descent with random_start=True. Use that",
}

_ORDERS = {"linf": float("inf"), "l2": 2}


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class CleverHansAttack(Attack):
    """Run an attack of cleverhans, as an independent check of this package's own.

    The steps are cleverhans's (arXiv 1610.00768). What differs: the model is asked for
    logits, both ends of the range are given, its checks are off (they crash under NumPy
    1.24 and later), the random start follows `seed`, NaN in a gradient counts as zero,
    and the result is brought into ball and range. It computes in float32 and returns
    the last iterate, whether an earlier one fooled the model or not. Needs
    `pip install cleverhans`. Other arguments are those of `Attack`, without `loss`.

    Args:
        method: `"fast_gradient_method"`, `"projected_gradient_descent"`,
            `"basic_iterative_method"` or `"momentum_iterative_method"`.
        steps: Number of gradient steps of the iterative methods, >= 1.
        step_size: In input units; default `epsilon / steps`, for
            `"projected_gradient_descent"` `2.5 * epsilon / steps`, at most `epsilon`.
        momentum: Weight of the former steps in `"momentum_iterative_method"`, >= 0.
        random_start: Whether `"projected_gradient_descent"` starts at a random point.
        norm: `"linf"` or `"l2"`.

    Example:
        >>> from keras_jsigr.attacks import CleverHansAttack
        >>> CleverHansAttack(epsilon=0.1).name
        'cleverhans PGD'
    """

    loss: LossName = field(default="cross_entropy", init=False, repr=False)
    method: str = "projected_gradient_descent"
    steps: int = 10
    step_size: float | None = None
    momentum: float = 1.0
    random_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method in _REFUSED:
            raise ValueError(
                f"cleverhans's `{self.method}` is not offered: {_REFUSED[self.method]}."
            )
        arguments.choice("method", self.method, _NAMES)
        arguments.choice("norm", self.norm, tuple(_ORDERS))
        arguments.choice("random_start", self.random_start, (False, True))
        if self.random_start and self.method != "projected_gradient_descent":
            raise ValueError(
                f"`random_start=True` does not belong to {self.method}: expected "
                "method='projected_gradient_descent'. Leave it out."
            )
        self._normalize(arguments.count, "steps")
        self._normalize(arguments.number, "momentum", minimum=0.0)
        self._normalize(arguments.number, "step_size", minimum=0.0, above=True)
        free = self.method in ("fast_gradient_method", "momentum_iterative_method")
        if not free and self.step_size and (self.epsilon or math.inf) < self.step_size:
            raise ValueError(
                f"`step_size` exceeds the radius: got {self.step_size:g} with epsilon "
                f"{self.epsilon:g}, expected at most that. cleverhans refuses longer steps."
            )

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return f"cleverhans {_NAMES[self.method]}"

    @property
    def passes(self) -> int:
        """Number of gradients per example."""
        return 1 if self.method == "fast_gradient_method" else self.steps

    def step_length(self, epsilon: float) -> float:
        """Return the step length in input units that is used at a radius."""
        if self.step_size is not None:
            return self.step_size
        factor = 2.5 if self.method == "projected_gradient_descent" else 1.0
        return min(factor / self.steps, 1.0) * epsilon

    def without_radius(self) -> Self:
        """Return the attack itself: cleverhans compares radii as Python numbers."""
        return self

    def program_key(self) -> Hashable:
        """Return the key of other attacks, and the radius."""
        return super().program_key(), self.epsilon

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""
        origin, ball = context.origin, context.ball
        low, high = context.input_range

        def model_fn(x: tf.Tensor) -> tf.Tensor:
            return context.logits(tf.cast(x, origin.dtype))

        start = ball.sample(fold_in(context.seed, 0)) - origin
        method, healthy = private_copy(self.method, tf.cast(start, tf.float32))
        x = method(
            model_fn,
            tf.cast(context.x, tf.float32),
            **self._own_arguments(),
            norm=_ORDERS[self.norm],
            clip_min=low,
            clip_max=high,
            y=tf.argmax(context.targets, axis=-1),
            targeted=self.targeted,
            sanity_checks=False,
        )
        x = ball.project(tf.cast(x, origin.dtype))
        return context.to_model_input(x), tf.reduce_all(healthy, axis=0)

    def _own_arguments(self) -> dict[str, Any]:
        epsilon: Any = self.epsilon
        own: dict[str, Any] = {"eps": epsilon}
        if self.method != "fast_gradient_method":
            own |= {"eps_iter": self.step_length(epsilon), "nb_iter": self.steps}
        if self.method == "momentum_iterative_method":
            own["decay_factor"] = self.momentum
        if self.method == "projected_gradient_descent":
            own["rand_init"] = self.random_start
        return own
