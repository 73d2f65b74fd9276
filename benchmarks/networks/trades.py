"""TRADES, which keras_jsigr does not offer: a recipe with its attacks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

import keras_jsigr as kj

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
        x_adv = x + tf.clip_by_value(
            x_adv - x, -self.attack.epsilon, self.attack.epsilon
        )
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
