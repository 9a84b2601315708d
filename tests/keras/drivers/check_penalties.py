"""Check what regularizers and constraints see of a layer, on the running backend of Keras."""

import warnings

import keras
import numpy as np
from harness import BACKEND, QUICKLY, RNG, X, check, main, numpy, raises, trained
from keras import layers
from lcmulti_keras import (
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected2DTranspose,
    SheetSmoothness,
    Smoothness,
)

import lcmulti
from lcmulti import layouts


@check
def smoothness_is_the_loss_of_the_layer():
    for distance in ("cosine", "squared"):
        for arguments in (dict(), dict(rank=2), dict(shared_axes=(1,), strides=2, padding=1)):
            for cls in (LocallyConnected2D, LocallyConnected2DTranspose):
                layer = cls(4, 3, kernel_regularizer=Smoothness(3.0, distance), **arguments)
                layer.build((None, 6, 5, 3))
                (loss,) = layer.losses
                kernel = numpy(layer.full_kernel())
                with lcmulti.config(backend="numpy"):
                    expected = 3 * lcmulti.smoothness(kernel, layer.spec, distance=distance)
                assert expected > 0.01
                np.testing.assert_allclose(numpy(loss), expected, rtol=1e-5)
    half = LocallyConnected2D(4, 3, kernel_regularizer=Smoothness(), dtype="float16")
    half.build((None, 6, 5, 3))
    assert 0 < float(numpy(half.losses[0])) < 0.02
    raises(lambda: Smoothness()(np.ones((3, 3, 4))), "a kernel of shape")
    for factor in (-1, "0.1", None, True, float("nan")):
        raises(lambda factor=factor: Smoothness(factor), "factor: expected a finite number")
    raises(lambda: Smoothness(distance="chess"), "distance")


@check
def sheet_smoothness_sees_the_bias():
    options = dict(sheet=(2, 2), neighbours=8, circular=True)
    for arguments in (dict(), dict(rank=2), dict(shared_axes=(1,)), dict(use_bias=False)):
        layer = LocallyConnected2D(
            4, 3, kernel_regularizer=SheetSmoothness(3.0, **options),
            bias_initializer="random_normal", **arguments,
        )  # fmt: skip
        layer.build((None, 6, 5, 3))
        (loss,) = layer.losses
        bias = None if layer.bias is None else numpy(layer.bias)
        with lcmulti.config(backend="numpy"):
            kernel = numpy(layer.full_kernel())
            expected = 3 * lcmulti.sheet_smoothness(kernel, bias, layer.spec, **options)
            without = 3 * lcmulti.sheet_smoothness(kernel, None, layer.spec, **options)
        np.testing.assert_allclose(numpy(loss), expected, rtol=1e-5)
        assert bias is None or abs(float(expected - without)) > 1e-6
        again = LocallyConnected2D.from_config(layer.get_config())
        assert again.kernel_regularizer.get_config() == layer.kernel_regularizer.get_config()
    turned = LocallyConnected2DTranspose(3, 2, kernel_regularizer=SheetSmoothness(1.0, (2, 2)))
    turned.build((None, 5, 4, 4))
    assert 0 < float(numpy(turned.losses[0])) < 1
    half = LocallyConnected2D(
        4, 3, kernel_regularizer=SheetSmoothness(1.0, (2, 2)), dtype="bfloat16"
    )
    half.build((None, 6, 5, 3))
    assert 0 < float(numpy(half.losses[0])) < 1
    raises(lambda: SheetSmoothness(1.0, (2, 2, 1)), "sheet: expected two numbers")
    raises(lambda: SheetSmoothness(1.0, (2, 2), neighbours=5), "neighbours: expected 4 or 8")
    raises(lambda: SheetSmoothness(1.0, (2, 2), circular=1), "circular: expected True or False")
    for layer, message in (
        (LocallyConnected2D(6, 3, kernel_regularizer=SheetSmoothness(1.0, (2, 2))), "a * b = 6"),
        (LocallyConnected1D(4, 3, kernel_regularizer=SheetSmoothness(1.0, (2, 2))), "two spatial"),
    ):
        raises(lambda each=layer: each.build((None, *(6, 5, 3)[: each.ndim + 1])), message)


def penalty_falls_below(share, regularizer):
    """Train a layer towards zeros: what is left of its penalty is less than a share of it."""
    model = keras.Sequential([
        keras.Input((6, 5, 3)), LocallyConnected2D(4, 2, kernel_regularizer=regularizer),
        layers.GlobalAveragePooling2D(),
    ])  # fmt: skip
    before = float(numpy(model.losses[0]))
    model.compile(keras.optimizers.Adam(0.05), "mse", **QUICKLY)
    model.fit(X, np.zeros((8, 4)), epochs=30, verbose=0)
    assert float(numpy(model.losses[0])) < share * before


@trained
def sheet_smoothness_makes_a_sheet():
    penalty_falls_below(0.3, SheetSmoothness(1.0, (2, 2)))


@trained
def smoothness_makes_maps_smooth():
    penalty_falls_below(0.5, Smoothness(1.0))


@check
def constraints_of_keras2_are_warned_of_once():
    constraint = keras.constraints.MaxNorm(2, axis=0)
    for implementation, kept in ((2, "*input_size"), (3, "connections")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                LocallyConnected2D(
                    4, 2, implementation=implementation, kernel_constraint=constraint
                )
        (warned,) = caught
        assert kept in str(warned.message)
        assert "axis=0" in str(warned.message)
        assert warned.filename == __file__, warned.filename
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LocallyConnected2D(4, 2, kernel_constraint=constraint)
        LocallyConnected2D(4, 2, implementation=1, kernel_constraint="non_neg")


@check
def constraints_of_old_models_constrain_what_they_did():
    from lcmulti_keras.legacy.adjusting import ADJUSTED

    axes = {
        "keras2-1": (0, 1, 2, -1, [0, 1]), "keras2-2": (0, 1, 2, [0, 1, 2]), "keras2-3": (0, -1),
    }  # fmt: skip
    for data_format in ("channels_last", "channels_first"):
        last = data_format == "channels_last"
        spec = lcmulti.LocalConvSpec(
            (6, 5, 3) if last else (3, 6, 5), 4, (2, 3), strides=(2, 1), data_format=data_format
        )
        kernel = RNG.standard_normal(spec.kernel_shape).astype("float32")
        filters = {"keras2-2": (5 if last else 3,)}
        for layout, each in axes.items():
            for axis in (*each, *filters.get(layout, ())):
                old = keras.constraints.UnitNorm(axis)
                config = dict(
                    implementation=int(layout[-1]), data_format=data_format, kernel_size=[2, 3],
                    kernel_constraint=keras.constraints.serialize(old),
                )  # fmt: skip
                assert ADJUSTED["LocallyConnected2D"](config) is None
                assert config["implementation"] == "auto"
                ours = numpy(keras.constraints.deserialize(config["kernel_constraint"])(kernel))
                stored = numpy(old(layouts.export_kernel(kernel, layout, spec)))
                theirs = layouts.import_kernel(stored, layout, spec)
                case = f"{layout} {data_format} {axis}"
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=case)
    config = dict(
        name="lc", implementation=2, kernel_size=[2, 3],
        kernel_constraint=keras.constraints.serialize(keras.constraints.MaxNorm(2, axis=3)),
    )  # fmt: skip
    assert ADJUSTED["LocallyConnected2D"](config) == "the kernel constraint of lc along its output"
    assert config["kernel_constraint"] is None


@trained
def operations_take_the_weights_of_a_layer_in_training():
    class Penalised(LocallyConnected2D):
        def call(self, x):
            self.add_loss(lcmulti.sheet_smoothness(self.kernel, self.bias, self.spec, sheet=(2, 2)))
            return lcmulti.local_conv(x, self.kernel, self.bias, **self.spec.arguments())

    torch = BACKEND == "torch"
    for jit_compile in (False, True) if not torch else (False,):
        model = keras.Sequential([keras.Input(X.shape[1:]), Penalised(4, 2, padding="same")])
        model.compile("sgd", "mse", jit_compile=jit_compile)
        before = numpy(model.layers[0].kernel)
        y = np.zeros((*X.shape[:3], 4), "float32")
        losses = model.fit(X, y, epochs=2, verbose=0).history["loss"]
        assert losses[1] < losses[0] and not np.allclose(before, numpy(model.layers[0].kernel))


main()
