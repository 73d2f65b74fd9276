"""One call that makes a Keras classifier train robustly, and one that undoes it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_jsigr.activations import has_relu
from keras_jsigr.config import JSIGRConfig, LiveMaps, RecipeName, from_v0_1, named_recipe
from keras_jsigr.core import arguments
from keras_jsigr.core.inputs import input_specs, probe_batch
from keras_jsigr.core.keras_compat import leaf_layers
from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties.jacobian import REVERSE_MODE
from keras_jsigr.saliency.cache import MapTable, PerturbationCache
from keras_jsigr.training.double_backprop_check import check_forward_mode, check_second_order
from keras_jsigr.training.input_scales import input_scales
from keras_jsigr.training.introspection import check_connected, regularized_inputs
from keras_jsigr.training.validation import (
    check_channels,
    check_dense,
    check_rematerialized,
    warn_of_own_steps,
)


def harden(
    model: keras.Model,
    epsilon: float | None = None,
    recipe: RecipeName | JSIGRConfig = "balanced",
    *,
    input_range: Any = (0.0, 1.0),
    multi_label: bool | None = None,
    saliency_maps: PerturbationCache | None = None,
    adversary: Any = None,
    inputs: str | list[str] | None = None,
    warmup: float = 0.2,
    seed: int = 0,
    name: str | None = None,
    verbose: int = 1,
    **deprecated: Any,
) -> JSIGRModel:
    """Wrap a Keras classifier so that `fit` trains it with J-SIGR.

    The training loss becomes `task loss + lambda_J R_J + lambda_S R_S + lambda_A R_A`:
    a norm of the Jacobian of the logits, the input gradient where a perturbation map
    marks nothing, and the disagreement of both maps; `JSIGRConfig` has the formulas.

    The weights are shared, not copied, and the model itself is not changed. A
    `train_step`, `compute_loss` or `compute_metrics` of its class is not called: the
    training step is that of J-SIGR. Layers are channels last.

    Args:
        model: A built Functional, Sequential or subclassed classifier with one output
            `(B, C)`: logits, or probabilities, of which the logits are used.
        epsilon: The maximum-norm radius of the attacks to withstand, in input units,
            > 0; the default of attacks, evaluations and callbacks. `None` means that of
            the recipe, else of the adversary, else 8/255 of the width of `input_range`.
        recipe: `"balanced"`, the most robust; `"fast"`, four fifths of the time;
            `"interpretable"`, whose gradient maps agree most with perturbation maps; or
            a `JSIGRConfig`, whose settings stay as they are.
        input_range: Range of the inputs that `fit` receives, `(low, high)`. Of tables
            whose columns differ: a pair of arrays with one number per column; with
            several inputs a list of pairs, or a dict of them by the inputs' names; or
            `"standardized"`, for inputs that adapted `Normalization` layers read, whose
            deviations are the units then. For these `epsilon` and `start_radius` are
            shares of the width of each column, or numbers of its deviations.
        multi_label: Whether the classes are independent, `True`, or exclude each
            other, `False`. `None` reads it from the head and the compiled loss; a
            loss of your own on a model that returns logits leaves it to you.
        saliency_maps: A `PerturbationCache` with maps of a trained network, found by
            the content of each sample; `None` means live maps of the model itself.
        adversary: An attack such as `keras_jsigr.attacks.FGSM(0.1, random_start=True)`, untargeted,
            of one input and this `input_range`: loss and penalties are taken at its points. It
            starts at the inputs; beside a `JSIGRConfig`, at random points of its `start_radius`:
            `2 * epsilon` there and `FGSM(epsilon)` are N-FGSM (arXiv 2202.01181).
        inputs: Names of the inputs to regularize, or one name; `None` means every float
            input that the logits have a gradient for: not the tokens of an `Embedding`.
        warmup: The penalties grow in linearly, over a share of the steps of the first `fit` (a
            float in 0..1), or over a number of training steps (an integer; `1.0` is all of `fit`,
            `1` is one step). Where the length of the data is not known, and without `fit`, a share
            is 200 steps. Another `fit`, `compile` or a reload goes on where it was.
        seed: Seed of the random projections and masks.
        name: Name of the hardened model; `None` means `hardened_<name of the model>`.
        verbose: 0 for silence; 1 for one line on each thing worth knowing.
        **deprecated: The keywords of version 0.1.0, which still work in this release:
            they start from `JSIGRConfig()` and warn with the new spelling.

    Returns:
        A `JSIGRModel`: compile and fit it as usual. `unwrap` returns the base.

    Raises:
        TypeError: If `model` is not a Keras model or a setting has the wrong type.
        ValueError: If the model is not built or not a classifier, a setting is out of
            range, or TensorFlow cannot differentiate the model twice.

    Reference:
        arXiv 2207.13036 (abstract); see `JSIGRConfig`.

    Example:
        >>> import keras, keras_jsigr as kj
        >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten()]
        >>> model = keras.Sequential([*layers, keras.layers.Dense(3)])
        >>> robust = kj.harden(model, epsilon=0.1)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> robust.compile("adam", loss, metrics=["accuracy"])
    """
    _check_model(model)
    names = _input_names(inputs)
    delay_steps = 0
    if deprecated:
        recipe, changed = _read_deprecated(recipe, epsilon, deprecated)
        saliency_maps = changed.get("maps", saliency_maps)
        warmup = changed.get("ramp_steps", warmup)
        delay_steps = changed.get("delay_steps", 0)
        arguments.count("delay_steps", delay_steps, minimum=0)
    check_dense(model)
    specs = input_specs(model)
    # Before the model is called: it may take integers of few values only.
    regularized_inputs(specs, None if names is None else tuple(names))
    scales = input_scales(input_range, model, specs)
    whole = (0.0, 1.0) if isinstance(scales, dict) else scales
    if saliency_maps is not None and not isinstance(saliency_maps, PerturbationCache):
        raise TypeError(
            f"Got {type(saliency_maps).__name__} as saliency_maps, expected a PerturbationCache. "
            "Make it by `PerturbationCache.build(model, x, y)`, or `.load(path)` a saved one."
        )
    config = _resolve_recipe(recipe, epsilon, whole, saliency_maps, adversary, verbose)
    check_channels(model, config)
    check_rematerialized(model, config)
    robust = JSIGRModel(
        model,
        config,
        input_range=scales,
        multi_label=multi_label,
        inputs=names,
        warmup=warmup,
        seed=seed,
        adversary=adversary,
        map_table=None if saliency_maps is None else MapTable.from_cache(saliency_maps),
        name=name,
    )
    robust.delay_steps.assign(delay_steps)
    # Finite differences need no gradient, so explicitly named inputs are allowed.
    if names is None or config.estimator in REVERSE_MODE:
        check_connected(robust.input_specs, robust.regularized, robust.connected)
    if config.check_gradients:
        _check_derivatives(robust, verbose)
    warn_of_own_steps(model)
    _tell_what_matters(robust, verbose)
    return robust


def unwrap(model: JSIGRModel) -> keras.Model:
    """Return the model that was hardened, the very same object, as trained.

    Args:
        model: A hardened model; any other raises a `TypeError`.

    Returns:
        Its base.

    Example:
        >>> import keras, keras_jsigr as kj
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> kj.unwrap(kj.harden(net, epsilon=0.1)) is net
        True
    """
    if not isinstance(model, JSIGRModel):
        raise TypeError(f"Got {type(model).__name__}, expected the model that `harden` returned.")
    return model.base


def _check_model(model: Any) -> None:
    if isinstance(model, JSIGRModel):
        raise ValueError(
            f"`{model.name}` is hardened already. Harden `unwrap(model)` to change its settings."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras 3 model. Load saved models "
            "with `keras.models.load_model` first."
        )
    if not model.built:
        raise ValueError(
            f"`{model.name}` is not built: got a model without weights. Call it once "
            "on a batch, or start it with `keras.Input(shape)`."
        )


def _input_names(inputs: Any) -> list[str] | None:
    if inputs is None:
        return None
    names = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(names, (list, tuple)):
        raise TypeError(
            f"Got {type(names).__name__} as inputs, expected a name or a list of "
            "names, as in `model.input_names`."
        )
    if len(set(names)) < len(names):
        raise ValueError(
            f"An input counts once: got inputs={list(names)}, expected different "
            "names. Leave the repetition out."
        )
    return list(names)


def _resolve_recipe(
    recipe: Any,
    epsilon: Any,
    input_range: tuple[float, float],
    maps: PerturbationCache | None,
    adversary: Any,
    verbose: int,
) -> JSIGRConfig:
    """Return the settings of a recipe for a threat model, and tell what is assumed."""
    if isinstance(recipe, JSIGRConfig):
        own = recipe.epsilon
        if epsilon is None:
            epsilon = own
        elif own is not None and epsilon != own:
            arguments.tell(
                f"the weights and start points of the recipe are those for epsilon "
                f"{own:g}, and stay as they are for {epsilon:g}.",
                verbose,
            )
    if epsilon is None:
        epsilon = _assumed_epsilon(adversary, input_range, verbose)
    if isinstance(recipe, JSIGRConfig):
        return recipe.replace(epsilon=epsilon)
    config = named_recipe(recipe, epsilon, input_range)
    if adversary is not None:
        config = config.replace(start_radius=0.0, start_patch_sizes=(1,))
    if maps is None and any(each.needs_whole_map for each in config.build_penalties()):
        arguments.tell(
            f"recipe='{recipe}' needs whole saliency maps: every step makes them by "
            "a grid of occlusions of the model itself, which is slow. Faster: "
            "saliency_maps=PerturbationCache.build(trained_model, x, y).",
            verbose,
        )
        config = config.replace(live_maps=LiveMaps(samples=None))
    return config


def _assumed_epsilon(adversary: Any, input_range: tuple[float, float], verbose: int) -> float:
    radius = getattr(adversary, "epsilon", None)
    if isinstance(radius, float) and getattr(adversary, "norm", None) == "linf":
        epsilon, why = radius, "that of the adversary"
    else:
        epsilon = 8.0 / 255.0 * (input_range[1] - input_range[0])
        why = "8/255 of the range"
    low, high = input_range
    arguments.tell(
        f"threat model: maximum norm, epsilon {epsilon:.4g} ({why}), inputs in "
        f"{low:g}..{high:g}. Pass epsilon= for another radius.",
        verbose,
    )
    return epsilon


def _check_derivatives(robust: JSIGRModel, verbose: int) -> None:
    base, penalties = robust.base, robust.penalties

    def batch(size: int) -> Any:
        return probe_batch(base, robust.input_specs, robust.probe_range, size)

    for index in robust.regularized:
        if any(penalty.needs_gradients for penalty in penalties):
            check_second_order(base, robust.logits, batch, index, verbose=verbose)
        elif penalties and robust.config.estimator == "jvp":
            check_forward_mode(base, robust.logits, batch(1), index)


def _tell_what_matters(robust: JSIGRModel, verbose: int) -> None:
    head = robust.head
    if head.layer is not None:
        arguments.tell(
            f"`{head.layer.name}` ends in a {head.kind}; the penalties use the logits before it.",
            verbose,
        )
    relu = [layer for layer in leaf_layers(robust.base) if has_relu(layer)]
    if relu:
        arguments.tell(
            f"{len(relu)} ReLU layers. Smooth ones train better here: SiLU took clean "
            "/ PGD-20 accuracy from 79.2 / 52.6 to 81.9 / 56.2 % on Fashion-MNIST "
            "(benchmarks/settings.py). See with_smooth_activations.",
            verbose,
        )


def _read_deprecated(
    recipe: Any, epsilon: Any, old: Mapping[str, Any]
) -> tuple[JSIGRConfig, dict[str, Any]]:
    """Translate keywords of version 0.1.0, and warn with the new spelling."""
    try:
        new, rest = from_v0_1(old)
    except ValueError as error:
        raise TypeError(f"`harden` got keywords that it does not have: {error}") from None
    if epsilon is not None:
        new.pop("epsilon", None)
    given = recipe if isinstance(recipe, JSIGRConfig) else JSIGRConfig()
    config = given.replace(**new)
    spelling = ["recipe=" + (repr(config) if new else "JSIGRConfig()")]
    spelling += ["saliency_maps=..."] * ("maps" in rest)
    spelling += [f"warmup={rest[name]}" for name in rest if name == "ramp_steps"]
    hint = ""
    if rest.get("penalty_weights", "fixed") != "fixed":
        hint = (
            " Weights that find themselves are a callback now: pass callbacks=[keras_jsigr."
            f"callbacks.AccuracyConstraint(max_drop={rest.get('accuracy_drop', 0.02)})] to `fit`; "
            "without it they stay as given."
        )
    if rest.get("delay_steps"):
        hint += " A delay of the penalties has no successor: use a longer warmup."
    warnings.warn(
        f"The keywords {sorted(old)} of `harden` are deprecated and will go with the "
        f"next release. Write harden(model, {', '.join(spelling)}).{hint}",
        DeprecationWarning,
        stacklevel=3,
    )
    return config, rest
