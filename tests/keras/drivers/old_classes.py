"""Old models that are classes of their own, whose attributes Keras numbers; see `old_models`."""

from old_kit import built, model, stack


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
