"""The networks of the benchmarks: architectures, recipes, training, and the cache.

A recipe is everything that decides what a trained network is; its hash names the file,
and results name the files of the networks that they are of.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from map_controls import controlled

import keras_jsigr as kj

# Its name, or a function such as `keras_jsigr.Swish`.
Activation = str | Callable[[Any], Any]


def reference_net(
    activation: Activation,
    seed: int,
    shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
) -> keras.Model:
    """Build conv4x4-s2(16, 32) + fc100 with logits.

    Args:
        activation: Of the hidden layers.
        seed: Of the weights.
        shape: Of the images.
        classes: How many there are.

    Returns:
        The untrained network.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            layers.Conv2D(16, 4, strides=2, padding="same", activation=activation),
            layers.Conv2D(32, 4, strides=2, padding="same", activation=activation),
            layers.Flatten(),
            layers.Dense(100, activation=activation),
            layers.Dense(classes),
        ]
    )


def madry_cnn(activation: Activation, seed: int) -> keras.Model:
    """Build conv5x5(32)-pool-conv5x5(64)-pool-fc1024 with logits.

    Args:
        activation: Of the hidden layers.
        seed: Of the weights.

    Returns:
        The untrained network for 28 x 28 images of ten classes.

    Reference:
        arXiv 1706.06083, section 5 (MNIST).
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(32, 5, padding="same", activation=activation),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, padding="same", activation=activation),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1024, activation=activation),
            layers.Dense(10),
        ]
    )


def resnet20(
    activation: Activation,
    seed: int,
    shape: tuple[int, int, int] = (28, 28, 1),
    stem: int = 1,
    classes: int = 10,
) -> keras.Model:
    """Build the ResNet-20 of three stages (16, 32, 64) with batch normalization.

    Args:
        activation: Of all layers.
        seed: Of the weights.
        shape: Of the images.
        stem: Strides of the first convolution: 2 brings images of 64 x 64 to the sides
            that the network was made for, at a quarter of the operations.
        classes: How many there are.

    Returns:
        The untrained network, with logits.

    Reference:
        arXiv 1512.03385, section 4.2 (shortcuts by 1 x 1 convolutions).
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers

    def convolution(x: Any, width: int, strides: int) -> Any:
        x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)
        # Keras' 0.99 remembers the start: a few hundred steps later it errs by far.
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input(shape, name="image")
    x = layers.Activation(activation)(convolution(inputs, 16, stem))
    for width in (16, 32, 64):
        for block in range(3):
            strides = 2 if width > 16 and block == 0 else 1
            inner = layers.Activation(activation)(convolution(x, width, strides))
            inner = convolution(inner, width, 1)
            if strides > 1:
                x = layers.Conv2D(width, 1, strides, use_bias=False)(x)
            x = layers.Activation(activation)(x + inner)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x))


def mobilenet(activation: Activation, seed: int) -> keras.Model:
    """Build MobileNet v1 of width 0.25 for 128 x 128 images of ten classes, with logits.

    Args:
        activation: In the place of its ReLU of at most 6.
        seed: Of the weights.

    Returns:
        The untrained network for images in 0..1; its second layer is the backbone.

    Reference:
        arXiv 1704.04861.
    """
    keras.utils.set_random_seed(seed)
    backbone = keras.applications.MobileNet(
        input_shape=(128, 128, 3), alpha=0.25, weights=None, include_top=False, pooling="avg"
    )
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((128, 128, 3), name="image"),
            layers.Rescaling(2.0, offset=-1.0),
            backbone,
            layers.Dense(10),
        ]
    )
    return net if activation == "relu" else kj.with_smooth_activations(net, activation)


def transformer(activation: Activation, seed: int) -> keras.Model:
    """Build a vision transformer of two blocks for 28 x 28 images, with logits.

    Args:
        activation: Of the hidden layers between the attention.
        seed: Of the weights.

    Returns:
        The untrained network: 49 patches of 4 x 4 pixels, 64 numbers each.

    Reference:
        arXiv 2010.11929.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.Reshape((49, 64))(layers.Conv2D(64, 4, strides=4)(inputs))
    places = layers.Embedding(49, 64)(np.arange(49)[None])
    x = x + places
    for _ in range(2):
        inner = layers.LayerNormalization()(x)
        # TensorFlow's fused attention has no second derivative.
        x = x + layers.MultiHeadAttention(4, 16, flash_attention=False)(inner, inner)
        inner = layers.Dense(128, activation=activation)(layers.LayerNormalization()(x))
        x = x + layers.Dense(64)(inner)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def colour_net(activation: Activation, seed: int) -> keras.Model:
    """Build conv3x3-s2(16, 32, 64) + fc100 with logits.

    Args:
        activation: Of the hidden layers.
        seed: Of the weights.

    Returns:
        The untrained network for 64 x 64 colour images of ten classes.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    convolutions = [
        layers.Conv2D(filters, 3, 2, "same", activation=activation) for filters in (16, 32, 64)
    ]
    dense = [layers.Dense(100, activation=activation), layers.Dense(10)]
    image = keras.Input((64, 64, 3), name="image")
    return keras.Sequential([image, *convolutions, layers.Flatten(), *dense])


NETS: dict[str, Callable[[Activation, int], keras.Model]] = {
    "reference": reference_net,
    "madry": madry_cnn,
    "resnet20": resnet20,
    "resnet20 colour": partial(resnet20, shape=(64, 64, 3), stem=2),
    "colour": colour_net,
    "reference gtsrb": partial(reference_net, shape=(32, 32, 3), classes=43),
    "resnet20 gtsrb": partial(resnet20, shape=(32, 32, 3), classes=43),
    "mobilenet": mobilenet,
    "transformer": transformer,
}


# The width of the noise that the attack starts from, as in the authors' code: at the
# input itself the divergence has no gradient.
START = 1e-3


class Trades(keras.Model):
    """Train on `CE(f(x), y) + beta KL(f(x) || f(x'))`, x' where the second is large.

    Args:
        net: A classifier with logits; trained in place.
        epsilon: Linf radius, inputs in 0..1.
        steps: Of the attack, each `2.5 epsilon / steps` long.
        beta: Weight of the divergence.
        seed: Of the starts.

    Reference:
        arXiv 1901.08573, equation 5 and algorithm 1.
    """

    def __init__(
        self, net: keras.Model, epsilon: float, steps: int, beta: float, seed: int = 0
    ) -> None:
        super().__init__()
        self.net, self.beta = net, beta
        self.attack = kj.attacks.PGD(epsilon=epsilon, steps=steps, random_start=False)
        self.seeds = keras.random.SeedGenerator(seed)
        self.build(net.input_shape)

    def build(self, input_shape: Any) -> None:
        """Do nothing: the network is built."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the logits."""
        return self.net(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        start = x + START * keras.random.normal(tf.shape(x), seed=self.seeds)
        # Cross entropy to the clean distribution is the divergence and a constant.
        clean = tf.nn.softmax(self.net(x, training=False))
        x_adv = self.attack.perturb(
            lambda v: self.net(v, training=False),
            start,
            clean,
            seed=tf.zeros((2,), tf.int32),
        )
        x_adv = x + tf.clip_by_value(x_adv - x, -self.attack.epsilon, self.attack.epsilon)
        x_adv = tf.stop_gradient(tf.clip_by_value(x_adv, 0.0, 1.0))
        with tf.GradientTape() as tape:
            logits = self.net(x, training=True)
            loss = self.compute_loss(x, y, logits, sample_weight)
            divergence = kl(logits, self.net(x_adv, training=True))
            total = loss + self.beta * tf.reduce_mean(divergence)
            scaled = self.optimizer.scale_loss(total)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        metrics: dict[str, Any] = self.compute_metrics(x, y, logits, sample_weight)
        return {**metrics, "loss": total}


def kl(logits: Any, others: Any) -> tf.Tensor:
    """Compute `KL(softmax(logits) || softmax(others))`, float `(B,)`."""
    log_p, log_q = tf.nn.log_softmax(logits), tf.nn.log_softmax(others)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


CACHE = Path(__file__).parent / "cache"
EPSILON = 0.1  # Linf, inputs in 0..1: the radius of every Fashion-MNIST figure here

# Everything that decides what a trained network is; its hash names the file.
Recipe = dict[str, Any]
_TRAINING: Recipe = {"net": "reference", "batch": 128, "rate": 2e-3, "seed": 0}
_SAMPLE: Recipe = {**_TRAINING, "source": "sample", "activation": "silu", "epochs": 15}
RECIPES: dict[str, Recipe] = {
    "plain": {**_SAMPLE, "defence": None},
    "hardened": {**_SAMPLE, "defence": "harden"},
    "pgd": {**_SAMPLE, "defence": "PGD-7"},
    "resnet20": {**_SAMPLE, "net": "resnet20", "activation": "relu", "epochs": 10}
    | {"defence": None},
}
# The weights of J-SIGR.
WEIGHTS = ("jacobian_weight", "selective_weight")
OFF = kj.JSIGRConfig(**dict.fromkeys(WEIGHTS, 0.0), check_gradients=False)
LEARNT = 0.75  # accuracy below which a network says nothing of attacks or maps


def adversary(name: str, epsilon: float) -> Any:
    """Return the attack that a network is trained against.

    Args:
        name: `"FGSM"` (no random start), `"FGSM-RS"` (a random one, step
            `1.25 epsilon`), `"N-FGSM"` (step `epsilon` from a random point within
            twice the radius, arXiv 2202.01181), or `"PGD-k"` (step `2.5 epsilon / k`).
        epsilon: Linf radius, inputs in 0..1.

    Returns:
        An attack of keras_jsigr.
    """
    if name == "N-FGSM":  # what sets it apart is where it starts
        return kj.attacks.FGSM(epsilon=epsilon)
    if name.startswith("FGSM"):
        return kj.attacks.FGSM(epsilon=epsilon, random_start=name == "FGSM-RS")
    return kj.attacks.PGD(epsilon=epsilon, steps=int(name.removeprefix("PGD-")))


def untrained(
    recipe: Recipe, maps: Any = None, weights: Path | None = None
) -> tuple[keras.Model, keras.Model]:
    """Make a network and the model whose `fit` trains it by the recipe.

    Args:
        recipe: See `RECIPES`; `"epsilon"` is that of the adversary, `"settings"` are
            fields of `JSIGRConfig`, `"images"` is their number where it is not the
            sample's, `"swish"` the beta of an activation in the place of the named one.
        maps: A `PerturbationCache` for the hardened network, or `None`.
        weights: The file that a recipe with `"pretrained"` starts from.

    Raises:
        ValueError: If that file is missing.

    Returns:
        The network, and the model to fit: the same, or one around it.
    """
    swish = recipe.get("swish")
    activation = kj.Swish(swish) if swish else recipe["activation"]
    net = NETS[recipe["net"]](activation, recipe["seed"])
    if "pretrained" in recipe:
        if weights is None:
            raise ValueError(f"Got no weights, expected --weights {recipe['pretrained']}.")
        backbone = next(layer for layer in net.layers if isinstance(layer, keras.Model))
        backbone.load_weights(weights)
    defence, epsilon = recipe["defence"], recipe.get("epsilon", EPSILON)
    if defence is None:
        return net, net
    if defence == "noise":
        noise = keras.layers.GaussianNoise(recipe["sigma"], seed=recipe["seed"])
        return net, keras.Sequential([keras.Input(net.input_shape[1:]), noise, net])
    if defence.startswith("TRADES"):
        steps = int(defence.removeprefix("TRADES-"))
        return net, Trades(net, epsilon, steps, recipe["beta"], recipe["seed"])
    settings, attack = recipe.get("settings", {}), recipe.get("adversary")
    config = kj.JSIGRConfig(**settings) if defence == "harden" else OFF
    if defence != "harden":
        # Without penalties a step is the adversary's gradients and the plain step.
        attack = defence
    if attack == "N-FGSM":
        config = config.replace(start_radius=2.0 * epsilon)
    steps = recipe["epochs"] * -(-recipe.get("images", 12_000) // recipe["batch"])
    return net, kj.harden(
        net,
        recipe=config,
        saliency_maps=maps,
        adversary=attack and adversary(attack, epsilon),
        warmup=steps // 5,
        verbose=0,
    )


def changed_fields(config: kj.JSIGRConfig) -> dict[str, Any]:
    """Return the fields of a config that differ from its defaults, as JSON has them."""
    default = kj.JSIGRConfig().get_config()
    return {k: v for k, v in config.get_config().items() if v != default[k]}


def train(
    recipe: Recipe,
    data: kj.datasets.Dataset,
    path: Path,
    callbacks: Any = (),
    teacher: Callable[[], keras.Model] | None = None,
    weights: Path | None = None,
) -> keras.Model:
    """Train by the recipe, or load what was trained before.

    A training that was killed goes on at its last finished epoch.

    Args:
        recipe: See `RECIPES`; `"images"` limits those trained on.
        data: The images.
        path: The `.keras` file to keep the network in.
        callbacks: Further Keras callbacks.
        teacher: Makes the network whose perturbation maps a recipe with
            `"maps"` trains with, see `map_controls`; not called otherwise.
        weights: As for `untrained`.

    Returns:
        The plain Keras network, with logits.
    """
    if path.exists():
        return keras.models.load_model(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = data.x_train[: recipe.get("images")], data.y_train[: recipe.get("images")]
    maps = None
    if "maps" in recipe:
        maps = controlled(recipe["maps"], teacher(), x, y, recipe["seed"])
    net, model = untrained(recipe, maps, weights)
    steps = recipe["epochs"] * -(-len(x) // recipe["batch"])
    rate = keras.optimizers.schedules.CosineDecay(recipe["rate"], steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if "label_smoothing" in recipe:
        share, classes = recipe["label_smoothing"], net.output_shape[-1]
        # In the rows, not in the loss: the penalties' score is of the same labels.
        y = (1.0 - share) * np.eye(classes, dtype=np.float32)[y] + share / classes
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer_of(recipe, rate), loss, metrics=["accuracy"])
    backup = keras.callbacks.BackupAndRestore(str(path.with_suffix("")) + "-backup")
    start = time.perf_counter()
    model.fit(
        x,
        y,
        epochs=recipe["epochs"],
        batch_size=recipe["batch"],
        verbose=0,
        callbacks=[backup, *callbacks],
    )
    print(f"trained {path.stem} in {time.perf_counter() - start:.0f} s", flush=True)
    # Under a temporary name first, for a network that is there is taken as whole.
    temporary = path.with_name(f"{path.stem}-unfinished.keras")
    net.save(temporary)
    temporary.replace(path)
    return net


def optimizer_of(recipe: Recipe, rate: Any) -> keras.optimizers.Optimizer:
    """Make Adam with what a recipe adds to it.

    Args:
        recipe: `"ema"` is the momentum of averaged weights, which `fit` leaves in the
            network at its end, `"clipnorm"` limits the norm of the whole gradient, and
            `"weight_decay"` is that of AdamW.
        rate: The learning rate.

    Returns:
        The optimizer.
    """
    more: dict[str, Any] = {}
    if "ema" in recipe:
        more |= {"use_ema": True, "ema_momentum": recipe["ema"]}
    if "clipnorm" in recipe:
        more |= {"global_clipnorm": recipe["clipnorm"]}
    if "weight_decay" in recipe:
        return keras.optimizers.AdamW(rate, weight_decay=recipe["weight_decay"], **more)
    return keras.optimizers.Adam(rate, **more)


def file_of(name: str, recipe: Recipe, cache: Path) -> Path:
    """Name the file of a trained network after what it is.

    Args:
        name: Of the network, for people.
        recipe: Of the network.
        cache: The folder of trained networks.

    Returns:
        Such as `cache/plain-1f2e3d4c.keras`.
    """
    text = json.dumps(recipe, sort_keys=True)
    return cache / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.keras"


def recipe_of(name: str, quick: bool = False) -> Recipe:
    """Return a recipe; the quick one trains for one epoch on 2,000 images.

    Args:
        name: A key of `RECIPES`.
        quick: Whether the network is for a smoke run.

    Returns:
        The recipe.
    """
    return RECIPES[name] | ({"epochs": 1, "images": 2_000} if quick else {})


def load(
    name: str,
    data: kj.datasets.Dataset,
    cache: Path = CACHE,
    quick: bool = False,
) -> keras.Model:
    """Return a trained network, from the cache if it is there.

    Args:
        name: A key of `RECIPES`.
        data: The embedded sample of Fashion-MNIST.
        cache: The folder of trained networks.
        quick: Whether the network is for a smoke run.

    Returns:
        A plain Keras model with logits.

    Raises:
        RuntimeError: If it has not learnt its task.
    """
    recipe = recipe_of(name, quick)
    net = train(recipe, data, file_of(name, recipe, Path(cache)))
    if quick:
        return net
    right = correct(net, data.x_test[:1000], data.y_test[:1000]).mean()
    if right < LEARNT:
        raise RuntimeError(
            f"The network {name!r} is right on {right:.1%} of 1,000 test images, "
            f"expected at least {LEARNT:.0%}: its figures would mean nothing. Train it "
            "longer."
        )
    return net


def correct(model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tell which images the model classifies rightly, bool `(N,)`."""
    return model.predict(x, batch_size=256, verbose=0).argmax(-1) == y
