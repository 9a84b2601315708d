"""Models in code that runs with tf_keras and with Keras 3, so that weights can be exchanged.

Each function takes `Kit`, which says whose layers they are, and returns a model that is built.
Many of their layers have the same shape, so that weights of the wrong layer would fit.
"""

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


# Subclassed ---------------------------------------------------------------------------------


@model
def attributes_before_and_after(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.zeta, self.alpha = t.LC1(2, 1), t.LC1(2, 1)
            self.lc, self.out = t.LC1(2, 1), t.L.Dense(2)

        def call(self, x):
            return self.out(self.lc(self.alpha(self.zeta(x))))

    return built(Net())


@model
def two_lists(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = [], []
            for _ in range(2):
                self.a.append(t.LC1(2, 1))
                self.b.append(t.LC1(2, 1))

        def call(self, x):
            for p, q in zip(self.a, self.b, strict=True):
                x = q(p(x))
            return x

    return built(Net())


@model
def lists_after_layers(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.rows = [t.LC1(2, 1) for _ in range(2)]
            self.mid = t.LC1(2, 1)
            self.cols = [t.LC1(2, 1) for _ in range(2)]
            self.last = t.LC1(2, 1)

        def call(self, x):
            for each in (*self.rows, self.mid, *self.cols, self.last):
                x = each(x)
            return x

    return built(Net())


@model
def dict_of_layers(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.branches = {"q": t.LC1(2, 1), "p": t.LC1(2, 1)}
            self.zs = {"q": t.LC1(2, 1), "p": t.LC1(2, 1)}

        def call(self, x):
            for each in (*self.branches.values(), *self.zs.values()):
                x = each(x)
            return x

    return built(Net())


@model
def lists_in_lists(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.grid = [[t.LC1(2, 1) for _ in range(2)] for _ in range(2)]
            self.pair = (t.LC1(2, 1), t.LC1(2, 1))

        def call(self, x):
            for row in (*self.grid, self.pair):
                for each in row:
                    x = each(x)
            return x

    return built(Net())


@model
def private_attributes(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self._hidden = t.LC1(2, 1)
            self.shown = t.LC1(2, 1)
            self._more = [t.LC1(2, 1), t.LC1(2, 1)]

        def call(self, x):
            for each in (self._hidden, self.shown, *self._more):
                x = each(x)
            return x

    return built(Net())


@model
def own_variables_and_metrics(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.lc = t.LC1(2, 1)
            self.head = t.L.Dense(2)
            self.scale = self.add_weight(name="scale", shape=(2,), initializer="ones")
            self.seen = t.k.metrics.Mean(name="seen")

        def call(self, x):
            return self.head(self.lc(x)) * self.scale

    return built(Net())


def own_part(t):
    class Part(t.k.Model):
        def __init__(self, **names):
            super().__init__(**names)
            self.first, self.second = t.LC1(2, 1), t.LC1(2, 1)
            self.scale = self.add_weight(name="scale", shape=(2,), initializer="ones")
            self.seen = t.k.metrics.Mean(name="seen")

        def call(self, x):
            return self.second(self.first(x)) * self.scale

    return Part


@model
def models_in_a_model(t):
    part = own_part(t)

    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = part(name="encoder"), part(name="decoder")
            self.more = [part(), part()]

        def call(self, x):
            x = self.decoder(self.encoder(x))
            for each in self.more:
                x = each(x)
            return x

    return built(Net())


@model
def three_deep(t):
    part = own_part(t)

    class Middle(t.k.Model):
        def __init__(self, **names):
            super().__init__(**names)
            self.left, self.right = part(), part()

        def call(self, x):
            return self.left(x) - self.right(x)

    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.z = Middle(), Middle(), t.LC1(2, 1)

        def call(self, x):
            return self.z(self.b(self.a(x)))

    return built(Net())


def own_block(t):
    class Block(t.L.Layer):
        def __init__(self, **names):
            super().__init__(**names)
            self.later, self.early = t.LC1(2, 1), t.LC1(2, 1)
            self.parts = [t.LC1(2, 1), t.LC1(2, 1)]

        def build(self, shape):
            self.gain = self.add_weight(name="gain", shape=(2,), initializer="ones")
            for each in (self.early, self.later, *self.parts):
                each.build(shape)
            super().build(shape)

        def call(self, x):
            x = self.later(self.early(x))
            for each in self.parts:
                x = each(x)
            return x * self.gain

    return Block


@model
def own_layers_of_layers(t):
    block = own_block(t)
    return stack(t, block(), block(name="named"), t.LC1(2, 1))


@model
def shared_attributes(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.shared = t.LC1(2, 1)
            self.zs = [self.shared, t.LC1(2, 1), t.LC1(2, 1)]
            self.alias = self.zs[2]

        def call(self, x):
            return self.alias(self.zs[1](self.shared(self.zs[0](x))))

    return built(Net())


@model
def set_again(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = t.LC1(2, 1), t.LC1(2, 1)
            self.one = t.LC1(2, 1)

        def call(self, x):
            return self.two(self.one(x))

    return built(Net())


@model
def stacks_in_a_class(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.up = stack(t, t.LC1(2, 1), t.L.BatchNormalization(), t.LC1(2, 1))
            self.down = stack(t, t.LC1(2, 1), t.L.BatchNormalization(), t.LC1(2, 1))

        def call(self, x):
            return self.down(self.up(x))

    return built(Net())


@model
def recurrent_in_a_class(t):
    class Net(t.k.Model):
        def __init__(self):
            super().__init__()
            self.both = t.L.Bidirectional(t.L.LSTM(2, return_sequences=True))
            self.each = t.L.TimeDistributed(t.L.Dense(2))
            self.again = t.L.Bidirectional(t.L.LSTM(1, return_sequences=True))
            self.lc = t.LC1(2, 2)

        def call(self, x):
            return self.lc(self.again(self.each(self.both(x))))

    return built(Net())


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
