"""The names that a file may use: Keras' own classes and activations, and nothing else.

Keras imports any module that a config names. Here, no module is imported: a class is looked up in
these sets, and any other is refused. Layers that run code (``Lambda``, ``TFOpLambda``) or hold
other things than weights (tables of strings, random states) are left out on purpose.
"""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "DROPPED", "KINDS", "LAYERS", "LOCAL", "MODELS", "RENAMED"]

LOCAL = ("LocallyConnected1D", "LocallyConnected2D")
MODELS = {"Sequential", "Functional", "Model"}


def _numbered(stems: str, dimensions: str = "123") -> set[str]:
    return {f"{stem}{n}D" for stem in stems.split() for n in dimensions}


LAYERS = {
    "InputLayer", *MODELS, *LOCAL,
    # core
    "Dense", "Activation", "Embedding", "Masking", "EinsumDense", "Identity",
    "ActivityRegularization",
    # shapes
    "Flatten", "Reshape", "Permute", "RepeatVector",
    *_numbered("Cropping UpSampling ZeroPadding"),
    # convolutions and pooling
    *_numbered("Conv Convolution MaxPooling MaxPool AveragePooling AvgPool"),
    *(f"Conv{n}DTranspose" for n in "123"), *(f"Convolution{n}DTranspose" for n in "123"),
    *_numbered("GlobalMaxPooling GlobalMaxPool GlobalAveragePooling GlobalAvgPool"),
    *_numbered("DepthwiseConv SeparableConv SeparableConvolution", "12"),
    # activations
    "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "ThresholdedReLU",
    # merging
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot",
    # normalisation and regularisation
    "BatchNormalization", "SyncBatchNormalization", "LayerNormalization", "GroupNormalization",
    "UnitNormalization", "SpectralNormalization", "Normalization", "Rescaling", "Resizing",
    "CenterCrop", "CategoryEncoding", "Discretization", "Dropout", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", *_numbered("SpatialDropout"),
    "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast",
    "RandomBrightness",  # but not RandomCrop: in Keras 3 it does not crop in inference
    # attention and recurrence
    "Attention", "AdditiveAttention", "MultiHeadAttention", "RNN", "SimpleRNN", "SimpleRNNCell",
    "LSTM", "LSTMCell", "CuDNNLSTM", "GRU", "GRUCell", "CuDNNGRU", "StackedRNNCells",
    *_numbered("ConvLSTM"),
    # wrappers
    "TimeDistributed", "Bidirectional",
}  # fmt: skip

INITIALIZERS = {
    "Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal",
    "VarianceScaling", "Orthogonal", "Identity", "GlorotUniform", "GlorotNormal", "HeNormal",
    "HeUniform", "LecunNormal", "LecunUniform",
}  # fmt: skip
REGULARIZERS = {"L1", "L2", "L1L2", "OrthogonalRegularizer"}
CONSTRAINTS = {"MaxNorm", "NonNeg", "UnitNorm", "MinMaxNorm"}
SCHEDULES = {
    "ExponentialDecay", "PiecewiseConstantDecay", "PolynomialDecay", "InverseTimeDecay",
    "CosineDecay", "CosineDecayRestarts",
}  # fmt: skip
OPTIMIZERS = {
    "SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Nadam", "Ftrl", "Lion",
    "Adafactor", "LossScaleOptimizer",
}  # fmt: skip
LOSSES = {
    "MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError",
    "MeanSquaredLogarithmicError", "BinaryCrossentropy", "BinaryFocalCrossentropy",
    "CategoricalCrossentropy", "CategoricalFocalCrossentropy", "SparseCategoricalCrossentropy",
    "Poisson", "KLDivergence", "Hinge", "SquaredHinge", "CategoricalHinge", "LogCosh", "Huber",
    "CosineSimilarity",
}  # fmt: skip
METRICS = LOSSES | {
    "Accuracy", "BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy",
    "TopKCategoricalAccuracy", "SparseTopKCategoricalAccuracy", "AUC", "Precision", "Recall",
    "RootMeanSquaredError", "Mean", "Sum", "TruePositives", "TrueNegatives", "FalsePositives",
    "FalseNegatives", "MeanIoU", "IoU", "BinaryIoU", "OneHotIoU", "OneHotMeanIoU", "F1Score",
    "FBetaScore", "R2Score", "LogCoshError", "SensitivityAtSpecificity",
    "SpecificityAtSensitivity", "PrecisionAtRecall", "RecallAtPrecision",
}  # fmt: skip

KINDS = {
    "layers": LAYERS,
    "initializers": INITIALIZERS,
    "regularizers": REGULARIZERS,
    "constraints": CONSTRAINTS,
    "optimizers": OPTIMIZERS,
    "optimizers.schedules": SCHEDULES,
    "losses": LOSSES,
    "metrics": METRICS,
}
"""Class names by the module of Keras that has them."""

ACTIVATIONS = {
    "linear", "relu", "relu6", "elu", "selu", "softplus", "softsign", "softmax", "tanh", "sigmoid",
    "hard_sigmoid", "exponential", "gelu", "swish", "silu", "mish", "leaky_relu", "log_softmax",
}  # fmt: skip

SHORT_NAMES = {
    # classes of tf.keras in TensorFlow 1.13 to 2.0
    "BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization",
    "UnifiedLSTM": "LSTM", "UnifiedGRU": "GRU",
    "LossScaleOptimizerV3": "LossScaleOptimizer",
    # lower-case names, which Keras 2 accepted, and wrote in its early versions
    "glorot_uniform": "GlorotUniform", "glorot_normal": "GlorotNormal", "he_normal": "HeNormal",
    "he_uniform": "HeUniform", "lecun_normal": "LecunNormal", "lecun_uniform": "LecunUniform",
    "zeros": "Zeros", "ones": "Ones", "constant": "Constant", "random_normal": "RandomNormal",
    "random_uniform": "RandomUniform", "truncated_normal": "TruncatedNormal",
    "variance_scaling": "VarianceScaling", "orthogonal": "Orthogonal", "identity": "Identity",
    "l1": "L1", "l2": "L2", "l1_l2": "L1L2", "max_norm": "MaxNorm", "non_neg": "NonNeg",
    "unit_norm": "UnitNorm", "min_max_norm": "MinMaxNorm",
}  # fmt: skip

RENAMED = {
    "SyncBatchNormalization": "BatchNormalization",
    "ThresholdedReLU": "ReLU",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
}

DROPPED: dict[str, tuple[object, ...] | None] = {
    # without a counterpart, and without an effect on results for any value
    "implementation": None, "fused": None, "rng_type": None, "force_generator": None,
    "input_length": None, "trainable": None, "renorm_clipping": None, "renorm_momentum": None,
    "num_words": None, "robust_masking": None, "softmax_robust_masking": None,
    "experimental_autocast": None, "kernel_initializer": None, "filters": None,
    # without an effect only for these values
    "groups": (1,), "interpolation": ("bilinear",),
}  # fmt: skip
"""Options that Keras 3 no longer has. Any option that is off (None, False) may be dropped, too."""
