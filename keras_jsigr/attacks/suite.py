"""Several attacks in turn, each on what the ones before it left."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.attack import Attack
from keras_jsigr.attacks.calls.inputs import check_inputs, check_model, check_region
from keras_jsigr.attacks.calls.labels import target_rows
from keras_jsigr.attacks.calls.outcome import Outcome, attacked
from keras_jsigr.attacks.calls.predictions import classified_rightly, predict_logits
from keras_jsigr.attacks.calls.programs import Programs
from keras_jsigr.attacks.calls.threat import one_threat


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True)
class Suite:
    """Attack with one method after the other: per example, one success is enough.

    The first attack gets the examples that are classified rightly, each further one
    those that are still. An attack that crashes is noted and the others go on. Called
    like an attack, `suite(model, x, y)` returns per example a point that fools the
    model, or the input where none was found.

    Args:
        attacks: At least one, untargeted, all of one radius, norm and range; those
            without a radius take that of the others.

    Raises:
        TypeError: If something else than attacks is given.
        ValueError: If there are none, or they differ in what is allowed.

    Reference:
        arXiv 2003.01690.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM, PGD
        >>> from keras_jsigr.attacks.suite import Suite
        >>> suite = Suite([FGSM(epsilon=0.25), PGD(epsilon=0.25)])
        >>> x = np.array([[0.5, 0.75], [0.0, 0.875]], "float32")
        >>> suite(lambda x: x, x, [1, 1]).tolist()
        [[0.75, 0.5], [0.0, 0.875]]
    """

    attacks: Sequence[Attack]
    _programs: Programs = field(
        default_factory=Programs, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check that the attacks search the same ball."""
        object.__setattr__(self, "attacks", one_threat(self.attacks))

    @property
    def epsilon(self) -> float:
        """The radius of all attacks, in input units."""
        return self.attacks[0].epsilon

    @property
    def norm(self) -> str:
        """The norm of all attacks."""
        return self.attacks[0].norm

    @property
    def input_range(self) -> tuple[float, float]:
        """The range of valid inputs of all attacks."""
        return self.attacks[0].input_range

    def at(self, epsilon: float) -> Self:
        """Return the same suite at another radius; compiled programs are shared.

        Args:
            epsilon: Radius in input units, >= 0.

        Returns:
            The suite.

        Example:
            >>> from keras_jsigr.attacks import PGD
            >>> from keras_jsigr.attacks.suite import Suite
            >>> Suite([PGD(epsilon=0.1)]).at(0.2).epsilon
            0.2
        """
        other = type(self)([attack.at(epsilon) for attack in self.attacks])
        object.__setattr__(other, "_programs", self._programs)
        return other

    def run(
        self, model: Any, x: Any, y: Any = None, *, region: Any = None
    ) -> Iterator[Outcome]:
        """Run the attacks one by one.

        Args:
            model: A Keras model of one input, or a callable.
            x: Float `(N, *S)`, NumPy array or eager tensor, in the attacks' range.
            y: Labels, or `None` for the model's own decisions.
            region: 1 where an input may change, 0 elsewhere; `None`: everywhere.

        Returns:
            An iterator over what each attack did. The arguments and the model at `x`
            are checked before; an attack runs when its outcome is asked for.

        Raises:
            TypeError: If `x` is not one float array or tensor.
            ValueError: If `x`, `y` or `region` do not fit the model or the settings.

        Example:
            >>> import numpy as np
            >>> from keras_jsigr.attacks import FGSM, PGD
            >>> from keras_jsigr.attacks.suite import Suite
            >>> suite = Suite([FGSM(epsilon=0.25), PGD(epsilon=0.25)])
            >>> x = np.array([[0.5, 0.75], [0.0, 0.875]], "float32")
            >>> for outcome in suite.run(lambda x: x, x, [1, 1]):
            ...     print(outcome.name, outcome.rows, outcome.broken)
            FGSM [0 1] [ True False]
            PGD [1] [False]
        """
        check_model(model)
        x = _as_array(check_inputs(x, self.input_range))
        where = None if region is None else check_region(region, x.shape)

        def logits_of(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
            batch_size = self.attacks[0].batch_size
            return predict_logits(model, points, batch_size, self._programs)

        logits = logits_of(x)
        if y is None:
            labels = logits.argmax(axis=-1)
        else:
            labels = target_rows(y, len(x), logits.shape[-1]).numpy().argmax(axis=-1)

        def outcomes() -> Iterator[Outcome]:
            left = np.flatnonzero(classified_rightly(logits, labels))
            for attack in self.attacks:
                outcome = attacked(attack, model, logits_of, x, labels, left, where)
                yield outcome
                left = left[~outcome.broken]

        return outcomes()

    def __call__(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        *,
        epsilons: Sequence[float] | None = None,
        region: Any = None,
    ) -> Any:
        """Attack `model` at `x`; see the class for arguments and result.

        Warns of attacks that crashed and of points that do not count, and raises
        RuntimeError if all attacks crashed.
        """
        if epsilons is not None:
            suites = [self.at(epsilon) for epsilon in epsilons]
            return [suite(model, x, y, region=region) for suite in suites]
        outcomes = self.run(model, x, y, region=region)
        worst, failed, crashed = _as_array(x).copy(), [], 0
        for outcome in outcomes:
            worst[outcome.rows[outcome.broken]] = outcome.x_adv[outcome.broken]
            crashed += outcome.crashed
            if outcome.error is not None:
                failed.append(f"{outcome.name}: {outcome.error}")
        if crashed == len(self.attacks):
            raise RuntimeError(
                f"No attack of the suite worked: got {failed}. Run one of them alone "
                "to see where it fails."
            )
        if failed:
            warnings.warn(
                f"Not everything of the suite worked: {failed}. The rest is not all "
                "that the model has to stand.",
                RuntimeWarning,
                stacklevel=2,
            )
        return worst if isinstance(x, np.ndarray) else tf.convert_to_tensor(worst)

    def get_config(self) -> dict[str, Any]:
        """Return the attacks and their settings as plain values that JSON can hold."""
        serialize = keras.saving.serialize_keras_object
        return {"attacks": [serialize(attack) for attack in self.attacks]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a suite of the settings that `get_config` returned."""
        restore = keras.saving.deserialize_keras_object
        return cls([restore(attack) for attack in config["attacks"]])


def _as_array(x: Any) -> npt.NDArray[Any]:
    return x if isinstance(x, np.ndarray) else x.numpy()
