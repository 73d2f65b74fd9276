"""Import cleverhans, and keep it free of hidden state while it is traced."""

from __future__ import annotations

import dataclasses
import importlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import Attack, AttackBatch
from keras_jsigr.attacks.gradient_attack import usable_part
from keras_jsigr.attacks.losses import LossName
from keras_jsigr.attacks.norms import BALLS
from keras_jsigr.core import arguments
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.random import fold_in

_LOCK = threading.RLock()


def cleverhans_attack(method: str) -> Any:
    """Import an attack of cleverhans."""
    return getattr(_module(method), method)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"cleverhans.tf2.attacks.{name}")
    except ImportError as error:
        raise ImportError(
            "CleverHansAttack needs cleverhans, which could not be imported: "
            f"{error}. Run pip install cleverhans."
        ) from error


@contextmanager
def pure(start: tf.Tensor) -> Iterator[list[tf.Tensor]]:
    """Keep cleverhans free of hidden state and NaN while it is traced."""
    modules = (_module("fast_gradient_method"), _module("momentum_iterative_method"))
    plain = modules[0].compute_gradient.python_function
    healthy: list[tf.Tensor] = []

    def compute_gradient(*args: Any) -> tf.Tensor:
        gradient, whole = usable_part(plain(*args))
        healthy.append(whole)
        return gradient

    def random_lp_vector(*_: Any, **__: Any) -> tf.Tensor:
        return start

    with _LOCK, ExitStack() as stack:
        for module in modules:
            stack.enter_context(_replaced(module, compute_gradient))
        pgd = _module("projected_gradient_descent")
        stack.enter_context(_replaced(pgd, random_lp_vector))
        yield healthy


@contextmanager
def _replaced(module: Any, function: Any) -> Iterator[None]:
    name = function.__name__
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)


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

    The steps are cleverhans's; its rough edges are taken off: the model is asked for
    logits, both ends of the range are given (with one, nothing is clipped), its checks
    are off (`sanity_checks=True` crashes under NumPy 1.24 and later), the random start
    follows `seed`, its trace is compiled once per model and radius and dies with the
    model, NaN in a gradient counts as zero, and the result is brought into ball and
    range. It computes in float32 and returns the last iterate, whether an earlier one
    fooled the model or not.

    Needs `pip install cleverhans`.

    Args:
        epsilon: Radius in input units, >= 0.
        method: `"fast_gradient_method"`, `"projected_gradient_descent"`,
            `"basic_iterative_method"` or `"momentum_iterative_method"`.
        steps: Number of gradient steps of the iterative methods, >= 1.
        step_size: In input units; default `epsilon / steps`, for
            `"projected_gradient_descent"` `2.5 * epsilon / steps` but at most
            `epsilon`, beyond which cleverhans refuses steps.
        momentum: Weight of the former steps in `"momentum_iterative_method"`, >= 0.
        random_start: Whether `"projected_gradient_descent"` starts at a random point
            of the ball (Madry's attack).
        norm: `"linf"` or `"l2"`.
        input_range: `(low, high)` of valid inputs.
        targeted: Whether `y` is the class to reach.
        batch_size: Number of examples worked on at once.
        seed: Of the random start.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        ImportError: In a call, if cleverhans is missing.
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range or does not belong to the method.

    Reference:
        arXiv 1610.00768 (cleverhans).

    Example:
        >>> from keras_jsigr.attacks.cleverhans import CleverHansAttack
        >>> CleverHansAttack(epsilon=0.1).name
        'cleverhans PGD'
    """

    loss: LossName = field(default="cross_entropy", init=False, repr=False)
    method: str = "projected_gradient_descent"
    steps: int = 10
    step_size: float | None = None
    momentum: float = 1.0
    random_start: bool = False

    _radii: dict[float, Self] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
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
        self._set("steps", arguments.count("steps", self.steps))
        self._set("momentum", arguments.number("momentum", self.momentum, minimum=0.0))
        if self.step_size is not None:
            step_size = arguments.number(
                "step_size", self.step_size, minimum=0.0, above=True
            )
            self._set("step_size", step_size)
            self._check_step_size(step_size)

    def _check_step_size(self, step_size: float) -> None:
        free = self.method in ("fast_gradient_method", "momentum_iterative_method")
        if step_size > self.epsilon > 0 and not free:
            raise ValueError(
                f"`step_size` exceeds the radius: got {step_size:g} with epsilon "
                f"{self.epsilon:g}, expected at most that. cleverhans refuses longer "
                "steps."
            )

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return f"cleverhans {_NAMES[self.method]}"

    @property
    def passes(self) -> int:
        """Number of gradients per example."""
        return 1 if self.method == "fast_gradient_method" else self.steps

    @property
    def step_length(self) -> float:
        """The step length in input units that is used."""
        if self.step_size is not None:
            return self.step_size
        factor = 2.5 if self.method == "projected_gradient_descent" else 1.0
        return min(factor / self.steps, 1.0) * self.epsilon

    def at(self, epsilon: float) -> Self:
        """Return the same attack at another radius, compiled once for it.

        Args:
            epsilon: Radius in input units, >= 0.

        Returns:
            The attack.

        Example:
            >>> from keras_jsigr.attacks.cleverhans import CleverHansAttack
            >>> CleverHansAttack(epsilon=0.1).at(0.2).epsilon
            0.2
        """
        if epsilon not in self._radii:
            other = dataclasses.replace(self, epsilon=epsilon)
            other._set("_radii", self._radii)
            self._radii[epsilon] = other
        return self._radii[epsilon]

    def traced_at(self, epsilon: tf.Tensor) -> Self:
        """Return the attack itself: cleverhans compares radii as Python numbers."""
        del epsilon
        return self

    def search(
        self, logits_fn: LogitsFn, problem: AttackBatch, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch; see `Attack.search`."""
        origin = problem.origin
        ball = BALLS[self.norm](origin, self.epsilon, self.input_range, problem.region)
        low, high = self.input_range

        def model_fn(x: tf.Tensor) -> tf.Tensor:
            return problem.logits(logits_fn, tf.cast(x, origin.dtype))

        start = tf.cast(ball.sample(fold_in(seed, 0)) - origin, tf.float32)
        method, own = cleverhans_attack(self.method), self._own_arguments()
        with pure(start) as healthy:
            x = method(
                model_fn,
                tf.cast(problem.x, tf.float32),
                **own,
                norm=_ORDERS[self.norm],
                clip_min=low,
                clip_max=high,
                y=tf.argmax(problem.targets, axis=-1),
                targeted=self.targeted,
                sanity_checks=False,
            )
        x = ball.project(tf.cast(x, origin.dtype))
        return problem.see(x), tf.reduce_all(healthy, axis=0)

    def _own_arguments(self) -> dict[str, Any]:
        if self.method == "fast_gradient_method":
            return {"eps": self.epsilon}
        own: dict[str, Any] = {
            "eps": self.epsilon,
            "eps_iter": self.step_length,
            "nb_iter": self.steps,
        }
        if self.method == "momentum_iterative_method":
            own["decay_factor"] = self.momentum
        if self.method == "projected_gradient_descent":
            own["rand_init"] = self.random_start
        return own
