"""Geometries that the tests of several backends compute."""

COMMON = {
    "grouped": dict(input_shape=(9, 8, 4), filters=6, kernel_size=(3, 2), groups=2,
                    padding=((1, 2), (0, 3)), strides=(2, 3), dilation=(2, 1)),
    "shared rows": dict(input_shape=(9, 8, 4), filters=3, kernel_size=(3, 2), padding=2,
                        dilation=(2, 3), strides=(3, 2), shared_axes=(0,)),
    "convolution": dict(input_shape=(9, 8, 4), filters=6, kernel_size=(3, 2), groups=2,
                        padding=((1, 2), (0, 3)), strides=2, shared_axes=(0, 1)),
    "disjoint 1d": dict(input_shape=(12, 3), filters=4, kernel_size=2, strides=2),
    "3d": dict(input_shape=(5, 4, 6, 2), filters=3, kernel_size=(2, 3, 2), padding="same"),
    "4d": dict(input_shape=(4, 3, 4, 3, 2), filters=2, kernel_size=(2, 1, 3, 2)),
}  # fmt: skip
