"""Every golden attacked and evaluated: hardened, plain, and loaded from its export."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr import attacks

RADIUS = 0.1


SMALL = {"epsilon": RADIUS, "verbose": 0}

# The goldens that differ in what slow modes may trouble: batch statistics, dropout in a
# subclass with a softmax, sequences, one sigmoid, inputs of several types.
various = pytest.mark.parametrize(
    "golden", ["resnet", "subclassed", "attention", "sigmoid", "two_inputs"], indirect=True
)


def attacked_input(golden):
    """Return the input under attack, and how to ask a model about it alone."""
    if not isinstance(golden.x, dict):
        return golden.x, lambda model: model
    tokens = tf.constant(golden.x["tokens"][:1])

    def ask(model):
        logits = getattr(model, "logits", model)
        return lambda image: logits(
            {"image": image, "tokens": tf.repeat(tokens, tf.shape(image)[0], axis=0)}
        )

    return golden.x["image"], ask


def decisions(model, x):
    x = tf.constant(x)
    logits = np.asarray(model.logits(x) if hasattr(model, "logits") else model(x))
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(-1)


def assert_valid(x_adv, x):
    assert x_adv.shape == x.shape
    assert np.isfinite(x_adv).all()
    assert np.abs(x_adv - x).max() <= RADIUS + 1e-6
    assert x_adv.min() >= 0 - 1e-6
    assert x_adv.max() <= 1 + 1e-6


@pytest.mark.slow
@various
def test_standard_suite(golden):
    robust = golden.harden()
    x, ask = attacked_input(golden)
    model = ask(robust)
    suite = attacks.AttackSuite(
        [
            attacks.APGD(steps=3, early_stop=True, **SMALL),
            attacks.TargetedAPGD(steps=2, target_classes=2, early_stop=True, **SMALL),
            attacks.FAB(steps=2, target_classes=2, **SMALL),
            attacks.Square(queries=6, **SMALL),
        ]
    )
    y = decisions(model, x)
    worst = x.copy()
    for outcome in suite.run(model, x, y):
        assert outcome.error is None
        assert_valid(outcome.x_adv, x[outcome.rows])
        worst[outcome.rows[outcome.broken]] = outcome.x_adv[outcome.broken]
    fooled = decisions(model, worst) != y
    assert np.array_equal(fooled, np.any(worst != x, axis=tuple(range(1, x.ndim))))


@pytest.mark.slow
@pytest.mark.parametrize("golden", ["mlp", "attention"], indirect=True)
# One golden network has the same answer everywhere: nothing to start from.
@pytest.mark.filterwarnings("ignore:HopSkipJump found no starting point")
def test_other_attacks(golden):
    robust = golden.harden()
    x = golden.x
    y = decisions(robust, x)
    for attack in (
        attacks.DeepFool(steps=3, **SMALL),
        attacks.TransferAttack(steps=2, nesterov=True, variance_samples=2, **SMALL),
        attacks.SPSA(steps=2, samples=4, **SMALL),
        attacks.UniformNoise(draws=3, **SMALL),
        attacks.HopSkipJump(queries=200, **SMALL),
    ):
        assert_valid(attack(robust, x, y), x)


@pytest.mark.slow
@various
def test_evaluated(golden):
    robust = golden.harden()
    x, ask = attacked_input(golden)
    y = golden.y
    report = kj.evaluate_robustness(
        ask(robust),
        x,
        y,
        epsilon=RADIUS,
        attacks=["fgsm", "bim"],
        epsilons=[RADIUS],
        surrogates={"plain": ask(golden.make())},
        transfer_attacks=["mi-fgsm"],
        diagnostics=False,
        examples=1,
        verbose=0,
    )
    assert report.errors == []
    right = decisions(ask(robust), x) == y
    assert report.clean.correct == right.sum()
    assert report.robust.correct <= report.clean.correct
    assert report.curve[0].accuracy == report.clean
    assert {record.epsilon for record in report.transfer} == {RADIUS, 2 * RADIUS}


@pytest.mark.slow
@various
def test_attacked_after_export(golden, tmp_path):
    if isinstance(golden.x, dict):
        pytest.skip("an attack changes one input; the export takes both by name")
    robust = golden.harden()
    robust.export(tmp_path / "1", verbose=0)
    loaded = tf.saved_model.load(tmp_path / "1")  # its signatures need it alive
    served = loaded.signatures["logits"]
    name = next(iter(served.structured_input_signature[1]))
    attack = attacks.PGD(steps=3, random_start=False, **SMALL)
    expected = attack(robust, golden.x, golden.y)
    x_adv = attack(lambda x: served(**{name: x})["logits"], golden.x, golden.y)
    # The sign of a gradient of rounding size may differ between both graphs.
    assert np.mean(np.abs(x_adv - expected) > 1e-5) < 0.01


BATCH = 8


def test_accuracy_constraint(golden, train):
    """Eager, which is cheaper here; tests/callbacks has the other modes."""
    robust = golden.compiled(run_eagerly=True, harden={"warmup": 0, "selection": "all"})
    constraint = kj.callbacks.AccuracyConstraint(max_drop=0.1, reference=1.0)
    history = train(golden, robust, epochs=2, callbacks=[constraint])
    x, y = golden.part(0, BATCH)
    outputs = robust.predict(x, verbose=0)
    chosen = outputs[:, 0] > 0.5 if golden.binary else outputs.argmax(-1)
    slack = np.mean(chosen == y) - 0.9
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)
    assert history["val_accuracy"][-1] == pytest.approx(slack + 0.9, abs=1e-6)
    assert history["penalty_factor"][0] == 1.0
    assert len(history["penalty_factor"]) == 2


def test_mixed_target(golden, train, reference):
    """In graph mode, where weights end elsewhere than by the Jacobian alone."""
    robust = golden.compiled(harden={"selective_target": "mixed"})
    train(golden, robust)
    pairs = zip(robust.base.get_weights(), reference.base.get_weights(), strict=True)
    assert any(np.abs(a - b).max() > 1e-7 for a, b in pairs)


@pytest.mark.slow
@various
def test_mixed_target_goes_on_after_loading(golden, train, assert_same_weights, tmp_path):
    saved = golden.compiled(harden={"selective_target": "mixed", "projection_std": 0.3})
    train(golden, saved)
    saved.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.config == saved.config
    for model in (saved, loaded):
        train(golden, model)
    assert_same_weights(loaded, saved)


def test_eager(golden, train):
    robust = golden.compiled(run_eagerly=True)
    train(golden, robust)
    assert robust.run_eagerly


def test_graph(golden, reference):
    assert not reference.run_eagerly
    assert not reference.jit_compile
    assert set(reference.history.history) >= {"accuracy", "val_accuracy", "val_loss"}


@pytest.mark.slow
@various
def test_xla(golden, train):
    robust = golden.compiled(jit_compile=True)
    train(golden, robust)
    assert robust.jit_compile


def half(golden, train, reference, policy, dtype):
    keras.config.set_dtype_policy(policy)
    robust = golden.compiled(harden={"check_gradients": dtype == tf.bfloat16})
    assert robust.dtype_policy.name == policy
    history = train(golden, robust, epochs=3)
    assert robust.logits(golden.part(0, 2)[0]).dtype == dtype
    assert all(v.dtype == "float32" for v in robust.trainable_variables)
    for name in ("jacobian_penalty", "selective_penalty", "task_loss"):
        ratio = history[name][0] / reference.history.history[name][0]
        assert 0.4 < ratio < 2.5, name
    return robust


def test_float16(golden, train, reference):
    robust = half(golden, train, reference, "mixed_float16", tf.float16)
    assert isinstance(robust.optimizer, keras.optimizers.LossScaleOptimizer)
    assert int(robust.optimizer.iterations) == 6  # no step was skipped


@pytest.mark.slow
@various
def test_bfloat16(golden, train, reference):
    half(golden, train, reference, "mixed_bfloat16", tf.bfloat16)


@pytest.mark.slow
@various
def test_two_devices(golden, train, two_devices):
    with two_devices.scope():
        robust = golden.compiled(harden={"check_gradients": True})
    train(golden, robust)
    for variable in robust.trainable_variables:
        np.testing.assert_array_equal(*variable.value.values)


def test_save_and_resume(golden, train, assert_same_weights, tmp_path):
    # Eager: to trace three times would take most of this test's time.
    unbroken = golden.compiled(run_eagerly=True)
    train(golden, unbroken)
    unbroken.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert type(resumed) is kj.JSIGRModel
    assert resumed.config == unbroken.config
    assert resumed.run_eagerly
    assert_same_weights(resumed, unbroken, atol=0)
    slots = [m.optimizer.variables for m in (resumed, unbroken)]
    assert len(slots[0]) >= 2 + len(resumed.trainable_variables)
    for left, right in zip(*slots, strict=True):
        np.testing.assert_array_equal(left, right)
    for model in (resumed, unbroken):
        model.fit(*golden.part(0, BATCH), batch_size=BATCH, verbose=0)
    assert int(resumed.optimizer.iterations) == 3
    assert_same_weights(resumed, unbroken)


def test_export_and_reload(golden, reference, tmp_path):
    reference.export(tmp_path / "served" / "1", verbose=0)
    served = tf.saved_model.load(tmp_path / "served" / "1").signatures
    names = [spec.name for spec in keras.tree.flatten(reference.input_specs)]
    x, _ = golden.part(0, 5)
    leaves = dict(zip(names, map(tf.constant, keras.tree.flatten(x)), strict=True))
    logits = np.asarray(reference.logits(x))
    answer = served["serving_default"](**leaves)
    np.testing.assert_allclose(served["logits"](**leaves)["logits"], logits, rtol=0, atol=1e-5)
    p = tf.nn.sigmoid(logits) if golden.binary else tf.nn.softmax(logits)
    np.testing.assert_allclose(answer["probabilities"], p, rtol=0, atol=1e-5)
    assert answer["class"].shape == (5,)


def test_tf_data(golden, train, reference, assert_same_weights):
    stream = golden.compiled()
    dataset = tf.data.Dataset.from_tensor_slices((golden.x, golden.y)).batch(BATCH)
    train(golden, stream, dataset.prefetch(1))
    assert_same_weights(stream, reference)


def test_sample_weights(golden, train, reference, assert_same_weights):
    """Weights of one change nothing; an example of weight zero has no influence."""
    ones = golden.compiled()
    weights = np.ones(len(golden.y), "float32")
    train(golden, ones, golden.x, golden.y, sample_weight=weights)
    assert_same_weights(ones, reference)
    if golden.couples:
        return
    settings = {"estimator": "exact", "selection": "all", "warmup": 0}
    # One step each, eager: tracing it would take most of this test's time.
    eager = {"harden": settings, "run_eagerly": True}
    whole, rest = (golden.compiled(**eager) for _ in range(2))
    x, y = golden.part(0, BATCH)
    weights = np.repeat([0.0, 1.0], BATCH // 2).astype("float32")
    whole.fit(x, y, sample_weight=weights, batch_size=BATCH, shuffle=False, verbose=0)
    # Keras divides by the number of examples, not by the sum of the weights.
    weights = np.full(BATCH // 2, 0.5, "float32")
    rest.fit(*golden.part(BATCH // 2, BATCH), sample_weight=weights, verbose=0)
    assert_same_weights(whole, rest)


@pytest.mark.slow
@various
def test_random_start(golden, train, reference):
    """In graph mode, where weights end elsewhere than at the data themselves."""
    robust = golden.compiled(harden={"start_radius": 0.05, "start_patch_sizes": (1, 4)})
    train(golden, robust)
    pairs = zip(robust.base.get_weights(), reference.base.get_weights(), strict=True)
    assert any(np.abs(a - b).max() > 1e-7 for a, b in pairs)
