"""Models of tf_keras with locally connected layers, among all kinds of other layers."""

import numpy as np
import tf_keras as k

L = k.layers
LC1, LC2 = L.LocallyConnected1D, L.LocallyConnected2D
MODELS = {}


def model(function):
    MODELS[function.__name__] = function
    return function


@model
def time_distributed():
    return k.Sequential([
        L.TimeDistributed(LC2(3, (2, 3), activation="relu"), input_shape=(4, 5, 6, 2)),
        L.TimeDistributed(L.Flatten()), L.LSTM(4, recurrent_activation="hard_sigmoid"), L.Dense(2),
    ])  # fmt: skip


@model
def bidirectional():
    x = k.Input((9, 3))
    y = LC1(4, 2, implementation=3, padding="same")(x)
    y = L.Bidirectional(L.GRU(3, return_sequences=True, reset_after=True))(y)
    y = L.Bidirectional(L.LSTM(2), merge_mode="sum")(y)
    return k.Model(x, L.Dense(2, activation="softmax")(y))


@model
def nested_in_functional():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(4, 2), L.BatchNormalization(), LC2(2, 2)])
    deeper = k.Sequential([L.InputLayer((5, 6, 3)), LC2(2, 3), LC2(2, 2)], name="deeper")
    deep = k.Sequential([deeper, L.Flatten(), L.Dense(3)], name="deep")
    x = k.Input((5, 6, 3))
    a, b = inner(x), deep(x)
    return k.Model(x, L.Concatenate()([L.Flatten()(a), b]))


@model
def shared_layers():
    local = LC2(3, (2, 3), implementation=2, padding="same")
    a, b = k.Input((5, 6, 3), name="a"), k.Input((5, 6, 3), name="b")
    y = L.Subtract()([local(a), L.ReLU(negative_slope=0.1)(local(b))])
    z = local(L.Multiply()([a, b]))
    return k.Model([a, b], [L.GlobalAveragePooling2D()(y), L.Flatten()(z), y])


@model
def names_with_slashes():
    x = k.Input((5, 6, 3), name="in/x")
    y = LC2(3, 2, name="block/one/local")(x)
    y = L.BatchNormalization(name="block/one/bn")(y)
    return k.Model(x, L.Flatten(name="block_one_bn")(y))


@model
def normalization_and_activations():
    x = k.Input((6, 5, 2))
    y = L.Rescaling(1 / 3.0, offset=-0.2)(x)
    y = LC2(4, 2, activation="leaky_relu")(y)
    y = L.BatchNormalization(axis=[3], scale=False)(y)
    y = L.PReLU(shared_axes=[1])(y)
    y = L.LayerNormalization()(y)
    names = ("elu", "selu", "softplus", "softsign", "swish", "gelu", "exponential", "mish",
                 "hard_sigmoid", "tanh", "sigmoid", "relu", "linear", "leaky_relu")  # fmt: skip
    outs = [L.Activation(name, name=f"act_{name}")(y) for name in names]
    outs += [L.LeakyReLU()(y), L.ELU(0.3)(y), L.ThresholdedReLU(0.2)(y), L.Softmax(axis=-1)(y)]
    outs += [L.LeakyReLU(alpha=0.05)(y), L.ReLU(max_value=1.0, threshold=0.1)(y)]
    return k.Model(x, L.Concatenate()(outs))


@model
def channels_first_head():
    return k.Sequential([
        LC2(4, (2, 3), data_format="channels_first", input_shape=(3, 5, 6), activation="tanh"),
        L.Flatten(data_format="channels_first"), L.Dense(2), L.Dropout(0.5),
    ])  # fmt: skip


@model
def channels_first_same_3():
    return k.Sequential([
        LC2(4, (2, 4), (2, 1), padding="same", data_format="channels_first", implementation=3,
            input_shape=(3, 5, 6)),
        L.Flatten(), L.Dense(2),
    ])  # fmt: skip


@model
def other_convolutions():
    x = k.Input((8, 9, 2))
    y = L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    y = L.SeparableConv2D(3, 3, padding="same")(y)
    y = L.Conv2DTranspose(2, 3, strides=2, padding="same")(y)
    y = L.AveragePooling2D(2, padding="same")(L.ZeroPadding2D(((1, 0), (2, 1)))(y))
    y = LC2(3, 3, (2, 2))(L.SpatialDropout2D(0.2)(y))
    y = L.UpSampling2D(2, interpolation="bilinear")(y)
    return k.Model(x, L.Cropping2D(1)(y))


@model
def embedding_1d():
    return k.Sequential([
        L.Embedding(11, 4, input_length=7, input_shape=(7,)), LC1(3, 3, activation=L.LeakyReLU()),
        L.GlobalMaxPooling1D(), L.Dense(1, activation="sigmoid"),
    ])  # fmt: skip


@model
def attention():
    x = k.Input((6, 4))
    y = LC1(4, 1)(x)
    y = L.MultiHeadAttention(2, 3)(y, value=x, key=x)
    return k.Model(x, L.LayerNormalization()(L.Add()([x, y])))


@model
def mixed_precision():
    k.mixed_precision.set_global_policy("mixed_float16")
    try:
        return k.Sequential([
            LC2(4, 2, input_shape=(5, 6, 3)), L.Flatten(), L.Dense(2, dtype="float32"),
        ])  # fmt: skip
    finally:
        k.mixed_precision.set_global_policy("float32")


@model
def double():
    k.backend.set_floatx("float64")
    try:
        return k.Sequential([LC1(4, 2, implementation=2, input_shape=(9, 3)), L.Flatten()])
    finally:
        k.backend.set_floatx("float32")


@model
def frozen_parts():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(4, 2), L.BatchNormalization(),
                          LC2(2, 2), L.BatchNormalization()])  # fmt: skip
    inner.layers[1].trainable = False
    return k.Sequential(
        [
            L.InputLayer((5, 6, 3)),
            inner,
            L.BatchNormalization(trainable=False),
            L.Flatten(),
            L.Dense(2),
        ]
    )


@model
def frozen_model():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(4, 2), L.BatchNormalization(), LC2(2, 2)])
    inner.trainable = False
    return k.Sequential([L.InputLayer((5, 6, 3)), inner, L.Flatten(), L.Dense(2)])


@model
def regularized():
    return k.Sequential([
        LC2(4, 2, input_shape=(5, 6, 3), kernel_regularizer=k.regularizers.l1_l2(0.1, 0.2),
            kernel_initializer=k.initializers.VarianceScaling(2.0, "fan_out"),
            bias_constraint="non_neg", kernel_constraint=k.constraints.UnitNorm(axis=1)),
        L.Flatten(), L.Dense(3, activation="softmax"),
    ])  # fmt: skip


@model
def preprocessing():
    norm = L.Normalization(axis=-1)
    norm.adapt(np.random.default_rng(3).normal(2, 3, (50, 6, 7, 2)))
    return k.Sequential([
        L.InputLayer((6, 7, 2)), norm, L.RandomFlip(), L.CenterCrop(5, 6), L.GaussianNoise(0.1),
        LC2(3, 3), L.Permute((2, 1, 3)), L.Reshape((-1, 3)), L.SimpleRNN(2),
    ])  # fmt: skip


@model
def recurrent_cells():
    x = k.Input((6, 4))
    y = L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True)(LC1(3, 2)(x))
    y = L.Masking(0.5)(y)
    return k.Model(x, L.GRU(2, reset_after=False)(y))


@model
def initial_state():
    x = k.Input((6, 4))
    _, *state = L.LSTM(3, return_state=True)(LC1(3, 2)(x))
    return k.Model(x, L.LSTM(3)(x, initial_state=state))


@model
def model_in_time_distributed():
    inner = k.Sequential([L.InputLayer((5, 6, 3)), LC2(2, 2), L.Flatten()])
    return k.Sequential([L.TimeDistributed(inner, input_shape=(3, 5, 6, 3)), L.Dense(2)])


@model
def layers_as_activations():
    return k.Sequential([
        L.InputLayer((6, 6, 2)), L.Conv2D(2, 2, kernel_constraint=k.constraints.RadialConstraint()),
        LC2(4, 2, activation=L.PReLU(shared_axes=[1, 2])),
        L.Flatten(), L.Dense(3, activation=L.PReLU()),
    ])  # fmt: skip


@model
def softmax_over_axes():
    return k.Sequential([L.InputLayer((6, 6, 2)), LC2(4, 2), L.Softmax(axis=[1, 3])])


@model
def functional_in_everything():
    x = k.Input((5, 6, 3))
    one = k.Model(x, L.Concatenate()([LC2(2, 3, padding="same", implementation=2)(x), x]))
    x = k.Input((5, 6, 5))
    two = k.Model(x, k.Sequential([L.InputLayer((5, 6, 5)), LC2(2, 2), L.Flatten()])(x))
    x = k.Input((3, 5, 6, 3))
    return k.Model(x, L.TimeDistributed(two)(L.TimeDistributed(one)(x)))


@model
def functional_ends_in_sequential():
    x = k.Input((5, 6, 3))
    inner = k.Model(
        x, k.Sequential([L.InputLayer((5, 6, 3)), LC2(2, 2), L.BatchNormalization()])(x)
    )
    return k.Sequential([inner, L.Flatten(), L.Dense(2)])


@model
def stateful():
    return k.Sequential([
        L.InputLayer(batch_input_shape=(4, 6, 3)), LC1(3, 2), L.LSTM(2, stateful=True),
    ])  # fmt: skip
