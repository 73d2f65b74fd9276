import keras
import numpy as np

from keras_jsigr.saliency.fingerprint import fingerprint_array, fingerprint_model


def test_values_and_shape_count_but_not_the_width():
    a = np.arange(6.0)
    assert fingerprint_array(a) == fingerprint_array(a.astype("float32"))
    assert fingerprint_array(a) != fingerprint_array(a.reshape(2, 3))
    assert fingerprint_array(a) != fingerprint_array(a + 1)
    assert fingerprint_array(a) != fingerprint_array(a.astype("int64"))
    assert fingerprint_array(None) == "none"
    many = np.arange(5000)
    other = many.copy()
    other[-1] = 0
    assert fingerprint_array(many) != fingerprint_array(other)


def test_the_model_counts_by_its_weights(conv_net, images):
    first = fingerprint_model(conv_net, conv_net, images)
    conv_net(images, training=True)
    assert fingerprint_model(conv_net, conv_net, images) == first
    twin = keras.models.clone_model(conv_net)
    twin.set_weights(conv_net.get_weights())
    assert fingerprint_model(twin, twin, images) == first
    twin.trainable = False
    assert fingerprint_model(twin, twin, images) == first
    conv_net.layers[-1].bias.assign([0.0, 0.0, 1.0])
    assert fingerprint_model(conv_net, conv_net, images) != first


def test_a_callable_counts_by_its_answers(conv_net, images):
    first = fingerprint_model(None, conv_net, images)
    assert (
        fingerprint_model(None, lambda x: conv_net(x) + 1e-6, images)[:7] == first[:7]
    )
    assert fingerprint_model(None, lambda x: conv_net(x) + 1.0, images) != first
