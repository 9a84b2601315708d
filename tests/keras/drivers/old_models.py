"""Models in code that runs with tf_keras and with Keras 3, so that weights can be exchanged.

Each function takes `Kit`, which says whose layers they are, and returns a model that is built.
Many of their layers have the same shape, so that weights of the wrong layer would fit.
"""

from old_classes import own_block
from old_kit import MODELS, SHAPE, kit, model, stack

__all__ = ["MODELS", "SHAPE", "SHAPES", "freeze", "kit", "outputs", "patterns"]

# Graphs -------------------------------------------------------------------------------------


@model
def chain(t):
    return stack(t, t.LC1(2, 1, activation="tanh"), t.LC1(2, 1), t.L.BatchNormalization(),
                 t.LC1(2, 1), t.L.Flatten(), t.L.Dense(2))  # fmt: skip


@model
def made_backwards(t):
    last, first = t.LC1(2, 1), t.LC1(2, 1, activation="tanh")
    return stack(t, first, last)


@model
def branches(t):
    x = t.k.Input(SHAPE)
    a, b = t.LC1(2, 1)(x), t.LC1(2, 1)(x)
    c = t.LC1(2, 1)(b)
    y = t.L.Concatenate()([c, t.LC1(2, 1)(t.L.BatchNormalization()(a)), a])
    return t.k.Model(x, t.L.Subtract()([t.LC1(2, 1)(y), b]))


@model
def branches_made_backwards(t):
    x = t.k.Input(SHAPE)
    last, first, middle = t.LC1(2, 1), t.LC1(2, 1), t.LC1(2, 1)
    return t.k.Model(x, t.L.Concatenate()([last(x), middle(first(x)), t.LC1(2, 1)(x)]))


@model
def several_outputs(t):
    x, z = t.k.Input(SHAPE), t.k.Input(SHAPE)
    shared = t.LC1(2, 1)
    a, b = shared(x), shared(z)
    y = t.L.Add()([t.LC1(2, 1)(a), t.LC1(2, 1)(b)])
    return t.k.Model([x, z], [t.LC1(2, 1)(y), t.LC1(2, 1)(a)])


@model
def shared_between_models(t):
    shared = t.LC1(2, 1)
    one, two = stack(t, shared, t.LC1(2, 1)), stack(t, shared, t.LC1(2, 1))
    x = t.k.Input(SHAPE)
    return t.k.Model(x, t.L.Subtract()([one(x), two(x)]))


@model
def two_dimensional(t):
    return stack(
        t, t.LC2(3, (2, 3), (1, 2), padding=t.same, implementation=2, activation="tanh"),
        t.LC2(3, 2, padding=t.same, implementation=3), t.LC2(2, 2, implementation=1),
        t.L.Flatten(), t.L.Dense(2), shape=(5, 6, 3),
    )  # fmt: skip


@model
def channels_first(t):
    first = dict(data_format="channels_first")
    return stack(
        t, t.LC2(3, 2, padding=t.same, implementation=2, **first),
        t.LC2(3, 3, padding=t.same, implementation=3, **first),
        t.LC2(2, 2, implementation=1, **first), shape=(3, 4, 5),
    )  # fmt: skip


# Models within models, of which parts may be frozen -----------------------------------------


def base(t, name, named):
    names = [f"{name}_{i}" if named else None for i in range(4)]
    return stack(
        t, t.LC1(2, 1, name=names[0], activation="tanh"), t.L.BatchNormalization(name=names[1]),
        t.LC1(2, 1, name=names[2]), t.L.BatchNormalization(name=names[3]), name=name,
    )  # fmt: skip


@model
def nested_named(t):
    return stack(t, base(t, "base", True), t.LC1(2, 1, name="head"))


@model
def nested_automatic(t):
    return stack(t, base(t, "base", False), t.LC1(2, 1))


@model
def nested_twice(t):
    inner = stack(t, base(t, "left", True), base(t, "right", True), name="inner")
    return stack(t, inner, t.LC1(2, 1))


@model
def nested_twice_automatic(t):
    inner = stack(t, base(t, "left", False), base(t, "right", False), name="inner")
    return stack(t, inner, t.LC1(2, 1))


@model
def nested_graph(t):
    x = t.k.Input(SHAPE)
    a, b = t.LC1(2, 1)(x), t.LC1(2, 1, activation="tanh")(x)
    inner = t.k.Model(x, t.L.Subtract()([t.LC1(2, 1)(a), t.LC1(2, 1)(b)]), name="inner")
    x = t.k.Input(SHAPE)
    return t.k.Model(x, t.LC1(2, 1)(inner(x)))


@model
def in_time_distributed(t):
    inner = base(t, "inner", False)
    x = t.k.Input((3, *SHAPE))
    y = t.L.TimeDistributed(t.LC1(2, 1))(t.L.TimeDistributed(inner)(x))
    return t.k.Model(x, y)


@model
def own_layer_within(t):
    block = own_block(t)
    return stack(t, stack(t, block(), t.LC1(2, 1), block(), name="base"), t.LC1(2, 1))


def freezable(made):
    """Layers below the first level of a model that have weights."""
    found = []
    for layer in made.layers:
        inner = getattr(layer, "layer", layer)
        for each in getattr(inner, "layers", ()):
            found += [deep for deep in getattr(each, "layers", [each]) if deep.weights]
    return found


def freeze(made, pattern):
    for layer, frozen in zip(freezable(made), pattern, strict=False):
        layer.trainable = not frozen


PATTERNS = {"none": "", "first": "1", "mixed": "0110"}
OTHERS = ("own_layer_within", "in_time_distributed", "stacks_in_a_class")
FREEZABLE = [name for name in MODELS if name.startswith("nested") or name in OTHERS]
SHAPES = {
    "two_dimensional": [(5, 6, 3)],
    "channels_first": [(3, 4, 5)],
    "in_time_distributed": [(3, *SHAPE)],
    "several_outputs": [SHAPE, SHAPE],
}


def patterns(name):
    """What to freeze of a model, by name."""
    return PATTERNS if name in FREEZABLE else {"none": ""}


def outputs(made, xs):
    """The outputs of a model, as a list."""
    ys = made(xs if len(xs) > 1 else xs[0])
    return list(ys) if isinstance(ys, (list, tuple)) else [ys]
