"""Several attacks in turn, each on what the ones before it left."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Self, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.apgd import APGD, TargetedAPGD
from keras_jsigr.attacks.base import Access, Attack, attack_dataset, check_inputs, check_region
from keras_jsigr.attacks.carlini_wagner import CarliniWagner
from keras_jsigr.attacks.fab import FAB
from keras_jsigr.attacks.hopskipjump import HopSkipJump
from keras_jsigr.attacks.minimum_norm import DeepFool
from keras_jsigr.attacks.noise import GaussianNoise, UniformNoise
from keras_jsigr.attacks.norms import is_feasible
from keras_jsigr.attacks.pgd import BIM, FGSM, PGD
from keras_jsigr.attacks.spsa import SPSA
from keras_jsigr.attacks.square import Square
from keras_jsigr.attacks.transfer import DIFGSM, MIFGSM, NIFGSM, SIFGSM, TIFGSM, VMIFGSM
from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import choice
from keras_jsigr.core.batching import classified_rightly, predict_logits
from keras_jsigr.core.files import to_json
from keras_jsigr.core.scores import target_rows
from keras_jsigr.core.streams import is_stream


class Outcome(NamedTuple):
    """Tell what one attack of a suite did."""

    name: str
    attack: Attack
    rows: npt.NDArray[np.int64]
    x_adv: npt.NDArray[Any]
    broken: npt.NDArray[np.bool_]
    seconds: float
    error: str | None
    crashed: bool = False


def attacked(
    attack: Attack,
    model: Any,
    logits_of: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    x: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    region: npt.NDArray[Any] | None = None,
) -> Outcome:
    """Attack some examples, and judge anew what the attack returns."""
    start, error, crashed = time.perf_counter(), None, False
    some = x_adv = x[rows]
    broken = np.zeros(len(rows), bool)
    limits: Any = (attack.epsilon, attack.norm, attack.input_range)
    if len(rows):
        part = None if region is None else region[rows]
        try:
            x_adv = np.asarray(attack(model, some, labels[rows], region=part))
            valid = is_feasible(x_adv, some, *limits)
            broken = valid & ~classified_rightly(logits_of(x_adv), labels[rows])
            if not valid.all():
                error = (
                    f"{int((~valid).sum())} of {len(rows)} points were not finite, or "
                    "outside of the ball or the range: they do not count"
                )
        except Exception as crash:
            x_adv, error, crashed = some, f"{type(crash).__name__}: {crash}", True
    seconds = time.perf_counter() - start
    return Outcome(attack.name, attack, rows, x_adv, broken, seconds, error, crashed)


def check_same_threat_model(attacks: Iterable[Any]) -> tuple[Attack, ...]:
    """Check that attacks search the same ball."""
    try:
        given = list(attacks)
    except TypeError:
        given = [None]
    strange = [item for item in given if not isinstance(item, Attack)]
    if strange:
        raise TypeError(
            f"`attacks` is {attacks!r}, expected a list of attacks. Pass for instance "
            "[APGD(epsilon=0.1), Square(epsilon=0.1)]."
        )
    if not given:
        raise ValueError(
            "`attacks` is empty: expected at least one attack. Use "
            "`AutoAttack(epsilon)` for a suite that needs no choice."
        )
    targeted = [attack.name for attack in given if attack.targeted]
    if targeted:
        raise ValueError(
            f"A suite makes a model leave the class `y`: got the targeted {targeted}, "
            "expected attacks with targeted=False. Call targeted attacks themselves."
        )
    ranges: set[Any] = {attack.input_range for attack in given} - {None}
    if len(ranges) == 1:
        (known,) = ranges
        given = [a if a.input_range else a.with_settings(input_range=known) for a in given]
    radii: set[Any] = {attack.epsilon for attack in given} - {None, math.inf}
    norms = {attack.norm for attack in given}
    for name, values in (("epsilon", radii), ("norm", norms), ("input_range", ranges)):
        if len(values) > 1:
            raise ValueError(
                f"The attacks of a suite differ in `{name}`: got {sorted(values)}, "
                "expected one value. Make one suite for each."
            )
    if not radii:  # no limit, or that of the model that is attacked
        return tuple(given)
    (radius,) = radii
    return tuple(a if a.epsilon == radius else a.at(radius) for a in given)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@keras.saving.register_keras_serializable(package="keras_jsigr", name="Suite")
@dataclass(frozen=True)
class AttackSuite:
    """Attack with one method after the other: per example, one success is enough.

    The first attack gets the examples that are classified rightly, each further one
    those that are still. An attack that crashes is noted and the others go on. Called
    like an attack, `suite(model, x, y)` returns per example a point that fools the
    model, or the input where none was found.

    Args:
        attacks: At least one, untargeted, all of one radius, norm and range; those
            without a radius or range take that of the others, or of the hardened model
            that is attacked.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> suite = kj.attacks.AttackSuite([kj.attacks.PGD(), kj.attacks.Square(0.25)])
        >>> suite(lambda x: x, np.array([[0.5, 0.75]]), [1]).tolist()
        [[0.75, 0.5]]
    """

    attacks: Sequence[Attack]

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacks", check_same_threat_model(self.attacks))

    @property
    def epsilon(self) -> float | None:
        """The radius of all attacks, in input units; `None` if none is named."""
        radii = [attack.epsilon for attack in self.attacks]
        return None if None in radii else radii[0]

    @property
    def norm(self) -> str:
        """The norm of all attacks."""
        return str(self.attacks[0].norm)

    @property
    def input_range(self) -> tuple[float, float] | None:
        """The range of valid inputs of all attacks; `None` if none is named."""
        return self.attacks[0].input_range

    def at(self, epsilon: float) -> Self:
        """Return the same suite at another radius; see `Attack.at`."""
        return type(self)([attack.at(epsilon) for attack in self.attacks])

    def for_model(self, *models: Any) -> Self:
        """Return the suite with radius and range named; see `Attack.for_model`."""
        return type(self)([attack.for_model(*models) for attack in self.attacks])

    def run(self, model: Any, x: Any, y: Any = None, *, region: Any = None) -> Iterator[Outcome]:
        """Run the attacks one by one; each runs when its outcome is asked for.

        The arguments are those of a call; they are checked at once.

        Example:
            >>> import numpy as np, keras_jsigr as kj
            >>> suite = kj.attacks.AutoAttack(0.25)
            >>> x = np.array([[0.5, 0.75]])
            >>> [o.name for o in suite.run(lambda x: x, x, [1]) if o.broken.any()]
            ['APGD-CE']
        """
        attacks = self.for_model(model).attacks
        input_range: Any = attacks[0].input_range
        x = _as_array(check_inputs(x, input_range, model))
        where = None if region is None else check_region(region, x.shape)

        def logits_of(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return predict_logits(model, points, attacks[0].batch_size)

        logits = logits_of(x)
        if y is None:
            labels = logits.argmax(axis=-1)
        else:
            labels = target_rows(y, len(x), logits.shape[-1]).numpy().argmax(axis=-1)

        def outcomes() -> Iterator[Outcome]:
            left = np.flatnonzero(classified_rightly(logits, labels))
            for attack in attacks:
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
        """Attack `model` at `x`; see the class for arguments and result."""
        if is_stream(x):
            return attack_dataset(self, model, x, y, epsilons=epsilons, region=region)
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


_STEPS, _CLASSES, _QUERIES = 100, 9, 5000
# The sparse steps of the L1 ball need more starts; fewer classes pay for them.
_L1_RESTARTS, _L1_CLASSES = 5, 5


def AutoAttack(  # noqa: N802
    epsilon: float | None = None,
    *,
    norm: Any = "linf",
    input_range: tuple[float, float] | None = None,
    batch_size: int = 128,
    seed: int = 0,
    verbose: Literal["auto", 0, 1] = "auto",
    levels: int | None = None,
) -> AttackSuite:
    """Make the suite of AutoAttack: two gradients, a boundary and no gradient at all.

    In turn, each on what is left: APGD-CE (100 steps), APGD-T (the 9 most likely wrong
    classes, 100 steps each), FAB-T (the same) and Square (5000 queries). Under the L1
    norm APGD-CE has 5 restarts and APGD-T 5 classes. All leave an example alone once it
    is misclassified. As version "standard" of the authors' code (arXiv 2003.01690; L1:
    arXiv 2103.01208). The arguments are those of `Attack`.

    Example:
        >>> from keras_jsigr.attacks import AutoAttack
        >>> [attack.name for attack in AutoAttack(8 / 255).attacks]
        ['APGD-CE', 'APGD-T', 'FAB-T', 'Square']
    """
    shared: dict[str, Any] = {
        "epsilon": epsilon,
        "norm": norm,
        "input_range": input_range,
        "batch_size": batch_size,
        "seed": seed,
        "verbose": verbose,
        "levels": levels,
    }
    sparse = arguments.norm(norm) == "l1"
    restarts = _L1_RESTARTS if sparse else 1
    classes = _L1_CLASSES if sparse else _CLASSES
    return AttackSuite(
        [
            APGD(steps=_STEPS, restarts=restarts, early_stop=True, **shared),
            TargetedAPGD(steps=_STEPS, target_classes=classes, early_stop=True, **shared),
            FAB(steps=_STEPS, target_classes=_CLASSES, **shared),
            Square(queries=_QUERIES, rescale_schedule=False, **shared),
        ]
    )


_NAMED: dict[str, Callable[..., Attack]] = {
    "fgsm": FGSM,
    "bim": BIM,
    "pgd": partial(PGD, steps=50, early_stop=True),
    "apgd-ce": partial(APGD, early_stop=True),
    "apgd-dlr": partial(APGD, loss="dlr", early_stop=True),
    "apgd-t": partial(TargetedAPGD, early_stop=True),
    "fab": FAB,
    "fab-t": partial(FAB, target_classes=9),
    "deepfool": DeepFool,
    "carlini-wagner": CarliniWagner,
    "square": Square,
    "spsa": SPSA,
    "hopskipjump": HopSkipJump,
    "uniform-noise": UniformNoise,
    "gaussian-noise": GaussianNoise,
    "mi-fgsm": MIFGSM,
    "ni-fgsm": NIFGSM,
    "di-fgsm": DIFGSM,
    "ti-fgsm": TIFGSM,
    "si-fgsm": SIFGSM,
    "vmi-fgsm": VMIFGSM,
}

# Names that reports give to attacks, where they are others but for the case.
_IN_REPORTS = {
    "cw-l2": "carlini-wagner",
    "mifgsm": "mi-fgsm",
    "mi-di-fgsm": "di-fgsm",
    "mi-ti-fgsm": "ti-fgsm",
    "si-mi-fgsm": "si-fgsm",
}


def attack_names() -> list[str]:
    """List the names that `named_attack` knows."""
    return list(_NAMED)


def named_attack(name: str, **settings: Any) -> Attack:
    """Make an attack of a name."""
    advice = "Pass one of these names, 'standard', or an attack object."
    key = name.lower().replace(" ", "-")
    key = _IN_REPORTS.get(key, key)
    choice("attack", key if key in _NAMED else name, tuple(_NAMED), advice=advice)
    return _NAMED[key](**settings)


def attacks_of(
    given: Any,
    *,
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
    batch_size: int,
    seed: int,
    levels: int | None = None,
    transfer: bool = False,
    argument: str = "attacks",
) -> list[Attack]:
    """Make the attacks of a threat model of what the user gave."""
    shared: dict[str, Any] = {
        "norm": norm,
        "input_range": input_range,
        "batch_size": batch_size,
        "seed": seed,
        "verbose": 0,
    }
    if isinstance(given, str) and given == "standard":
        given = AutoAttack(epsilon, **shared)
    given = getattr(given, "attacks", given)
    if isinstance(given, str | Attack):
        given = [given]
    if not isinstance(given, Sequence) or not given:
        raise TypeError(
            f"`{argument}` is {given!r}, expected 'standard', a suite, or a list of at "
            f"least one attack or name of {attack_names()}."
        )
    made = []
    for attack in given:
        if isinstance(attack, str):
            attack = named_attack(attack, epsilon=epsilon, **shared)
        if not isinstance(attack, Attack):
            raise TypeError(
                f"`{argument}` holds a {type(attack).__name__}, expected attacks "
                "such as keras_jsigr.attacks.PGD(...) or their names."
            )
        if attack.targeted:
            raise ValueError(
                f"{attack.name} is targeted: got targeted=True, expected False. `y` "
                "holds the true classes, which it would make the model predict."
            )
        # Checked now: a report is made of it hours later.
        choice(f"{type(attack).__name__}.access", attack.access, get_args(Access))
        if not isinstance(attack.name, str) or not attack.name:
            raise TypeError(f"`{type(attack).__name__}.name` is {attack.name!r}, expected a name.")
        to_json(attack.get_config(), f"{attack.name}.get_config()")
        _check_threat(attack, epsilon, norm, input_range, any_radius=transfer)
        changed: dict[str, Any] = {"input_range": input_range}
        if levels is not None:
            changed["levels"] = levels
        if transfer and getattr(attack, "early_stop", False):
            changed["early_stop"] = False
        made.append(attack.with_settings(**changed).at(epsilon))
    return made


def _check_threat(
    attack: Attack,
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
    *,
    any_radius: bool,
) -> None:
    pairs: list[tuple[str, Any, Any]] = [
        ("norm", attack.norm, norm),
        ("input_range", attack.input_range, input_range),
    ]
    if not any_radius and attack.epsilon not in (None, math.inf):
        pairs.append(("epsilon", attack.epsilon, epsilon))
    for name, got, expected in pairs:
        if got not in (None, expected):
            raise ValueError(
                f"{attack.name} belongs to another threat model: got {name} {got!r}, "
                f"expected {expected!r}. Make it with `{name}={expected!r}`, or "
                "evaluate under its own threat model."
            )


def by_name(attacks: Sequence[Any]) -> dict[str, Any]:
    """Give attacks names that tell them apart."""
    found: dict[str, Any] = {}
    for attack in attacks:
        found[free_name(attack.name, found)] = attack
    return found


def free_name(name: str, taken: Container[str]) -> str:
    """Return a name, numbered from two on if it is taken."""
    # The user may have given a numbered name, too.
    others = (f"{name} ({number})" for number in itertools.count(2))
    names = itertools.chain([name], others)
    return next(each for each in names if each not in taken)
