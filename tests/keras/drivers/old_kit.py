"""What the models of `old_models` are made with, and the list of them."""

from types import SimpleNamespace

MODELS = {}
SHAPE = (6, 2)


def kit(keras, one, two, same):
    """Whose layers a model is made of; *same* is what Keras 2 called the padding "same"."""
    return SimpleNamespace(k=keras, L=keras.layers, LC1=one, LC2=two, same=same)


def model(function):
    MODELS[function.__name__] = function
    return function


def built(made, shape=SHAPE):
    import numpy as np

    made(np.zeros((1, *shape), "float32"))
    return made


def stack(t, *layers, shape=SHAPE, **names):
    """A sequential model; the argument for its input's shape differs between the two."""
    return t.k.Sequential([t.k.Input(shape), *layers], **names)
