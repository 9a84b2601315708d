"""Imported weights give what the other library computes, or what loops over its definition do."""

import numpy as np
import pytest
from helpers_layouts import spec_of

import lcmulti
from lcmulti.weights import layouts


@pytest.mark.jax
@pytest.mark.parametrize("axes", [1, 2])
def test_flax_is_lax(axes, rng):
    """Flax's ConvLocal passes its kernel to this function unchanged."""
    jax = pytest.importorskip("jax")
    spec = spec_of(axes)
    x = rng.standard_normal((2, *spec.input_shape), dtype="float32")
    theirs = rng.standard_normal(layouts.kernel_shape("flax", spec), dtype="float32")
    letters = "HW"[:axes]
    y = jax.lax.conv_general_dilated_local(
        x, theirs, spec.strides, "VALID", spec.kernel_size,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"), precision="highest",
    )  # fmt: skip
    kernel = layouts.import_kernel(theirs, "flax", spec)
    ours = lcmulti.local_conv(x, kernel, strides=spec.strides)
    np.testing.assert_allclose(ours, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layouts.export_kernel(kernel, "flax", spec), theirs)


@pytest.mark.torch
def test_pytorch_recipe_runs(rng):
    """The module that people copy: unfold twice, multiply by ``(1, F, C, oH, oW, kH*kW)``, sum."""
    torch = pytest.importorskip("torch")
    spec = spec_of(2, "channels_first")
    x = torch.from_numpy(rng.standard_normal((2, *spec.input_shape)))
    theirs = rng.standard_normal(layouts.kernel_shape("pytorch-recipe", spec))
    bias = rng.standard_normal(layouts.bias_shape("pytorch-recipe", spec))
    (kh, kw), (sh, sw) = spec.kernel_size, spec.strides
    patches = x.unfold(2, kh, sh).unfold(3, kw, sw)
    patches = patches.contiguous().view(*patches.shape[:-2], -1)
    y = (patches.unsqueeze(1) * torch.from_numpy(theirs)).sum([2, -1]) + torch.from_numpy(bias)
    ours = lcmulti.local_conv(
        x.numpy(),
        layouts.import_kernel(theirs, "pytorch-recipe", spec),
        layouts.import_bias(bias, "pytorch-recipe", spec),
        strides=spec.strides,
        data_format="channels_first",
    )
    np.testing.assert_allclose(ours, y.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 2, 0), (2, 1, 1)]
)
def test_darknet_computes_so(size, stride, pad, rng):
    """Darknet's `forward_local_layer` as loops: a row of weights for each position."""
    height, channels, filters = 7, 2, 3
    out = (height - (1 if pad else size)) // stride + 1
    content = rng.standard_normal(filters * out**2 * (1 + channels * size**2)).astype("float32")
    image = rng.standard_normal((channels, height, height)).astype("float32")
    biases, weights = content[: filters * out**2], content[filters * out**2 :]
    columns = np.zeros((channels * size**2, out**2))
    for row, (c, i, j) in enumerate(np.ndindex(channels, size, size)):
        for at, (y, x) in enumerate(np.ndindex(out, out)):
            down, right = i + y * stride - pad, j + x * stride - pad
            if 0 <= down < height and 0 <= right < height:
                columns[row, at] = image[c, down, right]
    expected = biases.reshape(filters, out**2).astype("float64")
    for at in range(out**2):
        one = weights[at * filters * len(columns) :][: filters * len(columns)]
        expected[:, at] += one.reshape(filters, len(columns)) @ columns[:, at]

    after = (out - 1) * stride + size - height - pad
    spec = lcmulti.LocalConvSpec(
        (channels, height, height), filters, size, strides=stride,
        padding=[(pad, max(after, 0))] * 2, data_format="channels_first",
    )  # fmt: skip
    assert spec.output_size == (out, out)
    kernel = layouts.import_kernel(
        weights.reshape(layouts.kernel_shape("darknet", spec)), "darknet", spec
    )
    bias = layouts.import_bias(biases.reshape(layouts.bias_shape("darknet", spec)), "darknet", spec)
    came = lcmulti.local_conv(image[None], kernel, bias, strides=spec.strides, padding=spec.padding,
                              data_format="channels_first")  # fmt: skip
    np.testing.assert_allclose(came.reshape(filters, -1), expected, rtol=1e-4, atol=1e-4)
