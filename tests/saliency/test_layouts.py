"""Every layout by every method: the right map, or words that name the way out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.saliency import METHODS, explain, metrics
from keras_jsigr.saliency.grad_cam import find_feature_layer
from keras_jsigr.saliency.masks import expand_map

L = keras.layers
FAST = {
    "smoothgrad": {"samples": 4},
    "vargrad": {"samples": 8, "score": "log_prob"},
    "integrated_gradients": {"steps": 4, "baseline": 0.4},
    "grad_cam": {"verbose": 0},
    "occlusion": {"patch": 1, "baseline": 0.4},
    "rise": {"samples": 400, "baseline": 0.0},
}
GRADIENTS = ("gradient", "gradient_x_input", "smoothgrad", "vargrad")
GRADIENTS += ("integrated_gradients",)


def depends_on(shape, *place):
    """Return a model whose classes depend on one place alone, and the data."""
    inputs = keras.Input(shape)
    at = inputs[(slice(None), *place)]
    at = L.Flatten()(at) if len(at.shape) > 1 else L.Reshape((1,))(at)
    model = keras.Model(inputs, L.Dense(3)(keras.ops.tanh(3.0 * at)))
    rng = np.random.default_rng(1)
    weights = model.layers[-1].kernel
    weights.assign(np.array([[2.0, -1.0, -1.0]] * weights.shape[0]))
    return model, rng.uniform(0.5, 0.9, (3, *shape)).astype("float32")


def convolution(shape, moved):
    """Return a network of convolutions in which one pixel stands out."""
    inputs = keras.Input(shape)
    maps = L.Conv2D(2, 3, padding="same", use_bias=False, name="last")(inputs)
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(maps)))
    kernel = np.zeros((3, 3, shape[-1], 2), "float32")
    kernel[1, 1] = 1.0
    model.get_layer("last").kernel.assign(kernel)
    model.layers[-1].kernel.assign([[2.0, -1.0, -1.0]] * 2)
    x = np.zeros((3, *shape), "float32")
    x[(slice(None), *moved)] = 0.9
    return model, x


# Shape of an example, the place that matters, further settings.
READ = {
    "features": ((5,), (3,), {}),
    "sequence": ((6, 2), (4,), {}),
    "image": ((6, 7, 2), (4, 2), {}),
    "grey image": ((6, 7), (4, 2), {"layout": "image"}),
}


@pytest.mark.parametrize("method", [m for m in METHODS if m != "grad_cam"])
def test_the_place_that_matters_has_the_maximum(method):
    for layout, (shape, place, more) in READ.items():
        model, x = depends_on(shape, *place)
        if method in ("perturbation", "sarfa"):
            # A disc on every place, of the width of one.
            grid = (6, 7) if "image" in layout else (3, 2)
            more = {**more, "baseline": "zero", "grid": grid}
        maps = explain(model, x, [0] * 3, method=method, **FAST.get(method, {}), **more)
        kept = shape[:2] if "image" in layout else shape[:1]
        assert maps.shape == (3, *kept)
        best = np.unravel_index(maps.reshape(3, -1).argmax(1), kept)
        assert np.transpose(best).tolist() == [list(place[: len(kept)])] * 3, layout


def test_grad_cam_follows_the_content():
    for place in ((1, 5), (4, 0), (2, 3)):
        model, x = convolution((6, 7, 2), place)
        maps = explain(model, x, [0] * 3, method="grad_cam", verbose=0)
        assert np.unravel_index(maps[0].argmax(), (6, 7)) == place


def volume():
    inputs = keras.Input((4, 4, 4, 1))
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Conv3D(2, 2)(inputs))))


def channels_first():
    inputs = keras.Input((3, 8, 8))
    scaled = L.Conv2D(2, 3, data_format="channels_first")
    try:
        hidden = scaled(inputs)
    except Exception:  # no such kernel here
        pytest.skip("TensorFlow refuses the convolution itself")
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(hidden)))


def several_inputs():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()(inputs)))


def several_outputs(widths=(3, 3)):
    inputs = keras.Input((6,))
    return keras.Model(inputs, [L.Dense(width)(inputs) for width in widths])


def tokens():
    inputs = keras.Input((6,), dtype="int32")
    hidden = L.GlobalAveragePooling1D()(L.Embedding(9, 4)(inputs))
    return keras.Model(inputs, L.Dense(3)(hidden))


def no_images():
    inputs = keras.Input((6, 4))
    hidden = L.MultiHeadAttention(2, 4)(inputs, inputs)
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(hidden)))


def refused(model, shape, message, methods=METHODS, dtype="float32", **settings):
    x = np.random.default_rng(0).integers(1, 4, (2, *shape)).astype(dtype)
    for method in methods:
        own = {k: v for k, v in FAST.get(method, {}).items() if k not in settings}
        with pytest.raises((ValueError, TypeError), match=message):
            explain(model, x, method=method, **own, **settings)


def test_volumes_are_refused_but_for_signed_gradients():
    model = volume()
    others = [m for m in METHODS if m not in GRADIENTS]
    refused(model, (4, 4, 4, 1), "reduce=False", others)
    refused(model, (4, 4, 4, 1), "reduce=False", GRADIENTS)
    x = np.ones((2, 4, 4, 4, 1), "float32")
    for method in GRADIENTS:
        maps = explain(model, x, method=method, reduce=False, **FAST.get(method, {}))
        assert maps.shape == x.shape


def test_channels_first_is_refused():
    permuted = keras.Sequential([keras.Input((3, 8, 8)), L.Permute((2, 3, 1)), L.Flatten()])
    refused(permuted, (3, 8, 8), "channels last")
    model = channels_first()
    refused(model, (3, 8, 8), "channels last")
    refused(lambda x: x[:, 0, 0, :3], (3, 8, 8), "look like .C, H, W.", ["occlusion"])
    # By the way out that the message names.
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    moved = lambda x: x[:, 0, 0, :3]  # noqa: E731
    last = explain(lambda x: moved(tf.transpose(x, (0, 3, 1, 2))), x)
    assert np.argwhere(last.any(0)).tolist() == [[0, 0], [0, 1], [0, 2]]
    named = explain(moved, np.moveaxis(x, -1, 1), layout="image")
    assert named.shape == (2, 3, 8)


def test_several_inputs_and_outputs_are_refused():
    refused(several_inputs(), (4,), "2 inputs.*callable of the one", GRADIENTS)
    refused(several_inputs(), (4,), "2 inputs.*callable of the one", ["occlusion"])
    for widths in ((3, 3), (3, 2)):
        few = ["gradient", "occlusion", "perturbation"]
        refused(several_outputs(widths), (6,), "not a classifier with one output", few)
        model = several_outputs(widths)
        for outputs in (list, lambda found: {"a": found[0], "b": found[1]}):
            ask = lambda x: outputs(model(x))  # noqa: B023, E731
            refused(ask, (6,), r"2 outputs.*lambda x: model\(x\)\[0\]", few)


def test_tokens_are_covered_by_padding_but_never_mixed():
    model = tokens()
    refused(model, (6,), "which need no gradient", GRADIENTS[:4], "int32")
    refused(model, (6,), "for tokens", ["perturbation", "sarfa"], "int32")
    few = ["occlusion", "rise"]
    refused(model, (6,), "for tokens", few, "int32", baseline="mean")
    table, head = np.zeros((9, 4), "float32"), np.eye(4, 3, dtype="float32")
    table[7, 0] = 5.0
    model.layers[1].embeddings.assign(table)
    model.layers[-1].kernel.assign(head)
    x = np.array([[1, 2, 7, 3, 4, 5]], "int32")
    for method in ("occlusion", "rise", "perturbation"):
        more = {"baseline": "zero"} | {k: v for k, v in FAST.get(method, {}).items()}
        more["baseline"] = "zero"
        assert explain(model, x, [0], method=method, **more).argmax() == 2


def test_one_place_has_no_mean():
    one = keras.Sequential([keras.Input((1,)), L.Dense(4, activation="silu"), L.Dense(2)])
    for baseline in ("blur", "mean"):
        more = {"baseline": baseline}
        few = ["perturbation", "occlusion", "rise", "integrated_gradients"]
        refused(one, (1,), "nothing would change", few, **more)
    x = np.array([[0.2], [0.9]], "float32")
    assert (kj.perturbation_map(one, x, baseline="zero") == 1.0).all()
    with pytest.raises(ValueError, match="nothing would change"):
        kj.PerturbationCache.build(one, x, verbose=0)
    with pytest.warns(UserWarning, match="All 2 maps are constant"):
        kj.PerturbationCache.build(one, x, baseline="zero", verbose=0)


def test_one_example_without_its_batch_axis(conv_net, images):
    for method in METHODS:
        with pytest.raises(ValueError, match=r"x\[None\]"):
            explain(conv_net, images[0], method=method, **FAST.get(method, {}))


def test_labels_in_words(conv_net, images):
    for y, message in ((["cat"] * 11, "names.*index"), (1, r"np\.full")):
        with pytest.raises(TypeError, match=message):
            explain(conv_net, images, y)


# ---- Grad-CAM: which outputs are feature maps


def patches(x):
    x = keras.ops.reshape(x, (-1, 4, 4, 4, 4, 3))
    return keras.ops.reshape(keras.ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, 48))


def transformer(*, grid):
    inputs = keras.Input((16, 16, 3))
    tokens = L.Dense(8)(patches(inputs))
    tokens = tokens + L.MultiHeadAttention(2, 4)(tokens, tokens)
    if grid:
        tokens = L.Reshape((4, 4, 8), name="grid")(tokens)
        return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(tokens)))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(tokens)))


def between(*inner):
    """Return a network with a part that moves the axes between two convolutions."""
    start, tail = L.Conv2D(4, 1, name="first"), [L.Flatten(), L.Dense(3)]
    return keras.Sequential([keras.Input((16, 16, 3)), start, *inner, *tail])


class Gated(L.Layer):
    """Multiply maps by a gate of their own."""

    def __init__(self, channels):
        super().__init__()
        self.gate = L.Conv2D(channels, 3, padding="same", activation="sigmoid")

    def build(self, shape):
        self.gate.build(shape)

    def call(self, maps):
        return maps * self.gate(maps)


def test_feature_maps_lie_as_the_image_does():
    x = np.random.default_rng(0).random((2, 16, 16, 3)).astype("float32")
    for model, name in (
        (between(L.Conv2D(4, 3, name="it")), "it"),
        (transformer(grid=True), "grid"),
        (between(L.Conv2D(4, 3), L.Activation("silu", name="it")), "it"),
        # Behind axes that are turned, in front, or mixed, maps lie otherwise.
        (between(L.Permute((2, 1, 3)), L.Conv2D(2, 3)), "first"),
        (between(L.Permute((3, 1, 2))), "first"),
        (between(L.Flatten(), L.Dense(64), L.Reshape((4, 4, 4)), L.Conv2D(2, 3)), "first"),
        # A gate, which spatial attention multiplies the features by, is none of them.
        (between(L.Conv2D(4, 3, name="it"), Gated(1)), "it"),
    ):
        assert find_feature_layer(model, x).layer.name == name
        assert explain(model, x, method="grad_cam", verbose=0).shape == (2, 16, 16)


def test_projections_of_attention_are_no_feature_maps():
    model = transformer(grid=False)
    refused(model, (16, 16, 3), "tokens of attention are none", ["grad_cam"])
    refused(model, (16, 16, 3), "tokens", ["grad_cam"], layer="value")
    refused(no_images(), (6, 4), "Grad-CAM is for images", ["grad_cam"])
    refused(no_images(), (6, 4), "pass `layer.name`", ["grad_cam"], layer=L.ReLU())


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0"])
@pytest.mark.slow
def test_gates_do_not_hide_the_last_convolution(name):
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(96, 96, 3), classes=4)
    x = np.random.default_rng(0).random((2, 96, 96, 3)).astype("float32")
    assert find_feature_layer(model, x).shape[:2] == (3, 3)


# ---- metrics and pictures


def test_metrics_refuse_maps_of_other_axes():
    first, maps = np.ones((2, 1, 8, 8), "float32"), np.ones((2, 8, 8), "float32")
    score = lambda x: tf.reduce_sum(x, (1, 2, 3))  # noqa: E731
    with pytest.raises(ValueError, match="one channel axis more, the last one"):
        expand_map(maps, first)
    for measure in (metrics.deletion, metrics.insertion):
        with pytest.raises(ValueError, match="last one"):
            measure(score, first, maps, baseline="zero", steps=4)
    with pytest.raises(ValueError, match=r"look like .C, H, W."):
        metrics.control_map(first, "intensity")
    for measure in (metrics.pointing_game, metrics.relevance_mass):
        with pytest.raises(ValueError, match="Boxes are for maps of images"):
            measure(np.ones((2, 8)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="rank_correlation"):
        metrics.ssim(np.ones((2, 8)), np.ones((2, 8)))


def test_pictures_refuse_what_is_no_image():
    first = np.ones((2, 3, 8, 8), "float32")
    rows = tf.data.Dataset.from_tensors(np.ones((2, 8, 8, 1), "float32"))
    for draw in (kj.callbacks.SaliencyGrid, lambda x: kj.plot_saliency(x, x)):
        with pytest.raises(ValueError, match=r"look like .C, H, W."):
            draw(first)
        for data in (rows, np.ones((2, 8)), np.ones((2, 4, 4, 4, 1))):
            with pytest.raises((TypeError, ValueError), match=r"expected (an )?array"):
                draw(data)
