"""Backends of the tape that are wrong, each in one way. A docstring says what is wrong."""

import numpy as np
from saboteurs_tape import Array, ImplementationOnTape, Tape, sum_to


class TangentZero(Tape):
    """What a custom operator without a rule for forward mode returns."""

    def jvp(self, function, arrays, tangents):
        value, tangent = super().jvp(function, arrays, tangents)
        return value, self.array(np.zeros_like(tangent.value))


class TangentOfTheKernelForgotten(Tape):
    def jvp(self, function, arrays, tangents):
        zero = self.array(np.zeros_like(tangents[1].value))
        return super().jvp(function, arrays, (tangents[0], zero, *tangents[2:]))


class SecondDerivativeWrong(Tape):
    """Has the wrong sign in a part that only second derivatives use."""

    def close(self, implementation, entry, name="forward"):
        operation = super().close(implementation, entry, name)

        def closed(x, kernel, *rest):
            y = operation(x, kernel, *rest)
            (_, to_x), (_, to_kernel) = y.parents

            def lame(g):
                dkernel = to_kernel(g)
                (_, of_x), (dy, of_dy) = dkernel.parents
                minus = lambda g: self.array(-of_dy(g).value)  # noqa: E731
                return self.array(dkernel.value, ((x, of_x), (dy, minus)))

            return self.array(y.value, ((x, to_x), (kernel, lame)))

        return closed


class OnceDifferentiable(Tape):
    """Returns gradients without a graph, as if they were constants."""

    def vjp(self, function, arrays, cotangent):
        value, grads = super().vjp(function, arrays, cotangent)
        return value, tuple(self.array(each.value) for each in grads)


class CotangentIgnored(Tape):
    """Returns the gradient of the sum, whatever the cotangent is."""

    def vjp(self, function, arrays, cotangent):
        ones = self.array(np.ones_like(cotangent.value))
        return super().vjp(function, arrays, ones)


class BiasDropped(Tape):
    def add(self, y, bias):
        return self.array(
            y.value, ((y, lambda g: g), (bias, lambda g: sum_to(g, bias.value.shape)))
        )


class BiasShared(Tape):
    """Adds the first position's bias at all positions, as a convolution does."""

    def add(self, y, bias):
        axes = tuple(range(bias.value.ndim - 1))
        first = bias.value[(slice(0, 1),) * len(axes)]
        return super().add(y, self.array(np.broadcast_to(first, bias.value.shape).copy()))


class BiasReshaped(Tape):
    """Reshapes the bias to filters first, as Keras 2 does for channels-first arrays."""

    def add(self, y, bias):
        value = bias.value
        turned = np.moveaxis(value.reshape(value.shape[-1], *value.shape[:-1]), 0, -1).copy()
        back = lambda g: sum_to(g, value.shape)  # noqa: E731
        return super().add(y, self.array(turned, ((bias, back),)))


class BiasGradientNotSummed(Tape):
    """Gives a shared bias the gradient of its first position only."""

    def add(self, y, bias):
        def first(g):
            wanted = bias.value.shape
            value = g.value.sum(0)[tuple(slice(0, n) for n in wanted)]
            return self.array(value.astype(g.value.dtype))

        return self.array(y.value + bias.value, ((y, lambda g: g), (bias, first)))


class PaddingGradientLost(Tape):
    """Gives an element that padding repeats the gradient of only one of its copies."""

    def take(self, array, indices, axis):
        size = array.value.shape[axis]

        def back(g):
            shape = list(g.value.shape)
            shape[axis] = size
            total = np.zeros(shape, g.value.dtype)
            np.moveaxis(total, axis, 0)[indices] = np.moveaxis(g.value, axis, 0)
            return self.array(total)

        return self.array(np.take(array.value, indices, axis), ((array, back),))


class PaddingClipped(Tape):
    """Pads by repeating the border, whatever the mode is."""

    def take(self, array, indices, axis):
        low = int(np.argmin(indices))
        size = array.value.shape[axis]
        clipped = np.clip(np.arange(len(indices)) - low, 0, size - 1)
        return super().take(array, clipped, axis)


class AxisMovedByReshaping(Tape):
    def move_axis(self, array, source, destination):
        shape = np.moveaxis(array.value, source, destination).shape
        value = array.value.reshape(shape)
        back = lambda g: self.array(g.value.reshape(array.value.shape))  # noqa: E731
        return self.array(value, ((array, back),))


class PrecisionLostOnTheWay(Tape):
    """Silently rounds float64 to float32."""

    def from_numpy(self, array, like=None):
        array = array.astype("float32").astype("float64") if array.dtype == "float64" else array
        return self.array(array)


class OtherErrors(Tape):
    """Raises an error of its own before lcmulti can raise its own."""

    def facts(self, array, batched=False):
        if array.value.dtype.kind not in "fcV":
            raise TypeError(f"unsupported dtype {array.value.dtype}")
        return super().facts(array, batched)


class ClaimsNoDtype(Tape):
    pass


class ReverseOfNothing(Tape):
    """Declares reverse mode and has none."""

    def vjp(self, function, arrays, cotangent):
        raise NotImplementedError


class BiasGradientOfHalf(Tape):
    """Doubles the gradient of a bias that is shared along some axes but not along all."""

    def add(self, y, bias):
        ones = [n == 1 for n in bias.value.shape[:-1]]
        times = 2 if any(ones) and not all(ones) else 1

        def back(g):
            return self.array(sum_to(g, bias.value.shape).value * times)

        return self.array(y.value + bias.value, ((y, lambda g: g), (bias, back)))


class GradientsTogetherOnly(Tape):
    """Doubles the gradient when it is asked for one argument only, as for a first layer."""

    def vjp(self, function, arrays, cotangent):
        value, grads = super().vjp(function, arrays, cotangent)
        if len(arrays) == 1:
            grads = tuple(self.array(each.value * 2) for each in grads)
        return value, grads


class TangentOfDouble(Tape):
    """Returns a float64 tangent, whatever the dtype of the value is."""

    def jvp(self, function, arrays, tangents):
        value, tangent = super().jvp(function, arrays, tangents)
        wide = np.result_type(tangent.value, "float64")
        return value, self.array(tangent.value.astype(wide))


class OneImplementationForAll(Tape):
    """Uses an implementation of its own choice instead of the one it was given."""

    def close(self, implementation, entry, name="forward"):
        from lcmulti.numpy.backend import blocked

        return super().close(ImplementationOnTape(blocked, self.array), entry, name)


class ClaimsNothing(Tape):
    """Declares no differentiation, but returns wrong gradients."""

    def vjp(self, function, arrays, cotangent):
        value, grads = super().vjp(function, arrays, cotangent)
        return value, tuple(self.array(each.value * 2) for each in grads)


class IntegersAccepted(Tape):
    """Casts integers, which it should refuse."""

    def prepare(self, arrays):
        return tuple(
            each
            if each is None or not isinstance(each, Array) or each.value.dtype.kind in "fcV"
            else self.array(each.value.astype("float32"))
            for each in arrays
        )


class MixedTypesPromoted(Tape):
    """Promotes arrays of different dtypes, which it should refuse."""

    def prepare(self, arrays):
        if not all(each is None or isinstance(each, Array) for each in arrays):
            return arrays
        kinds = [each.value.dtype for each in arrays if each is not None]
        if len(set(kinds)) == 1 or not all(kind.kind in "fc" for kind in kinds):
            return arrays
        wide = np.result_type(*kinds)
        return tuple(None if a is None else self.array(a.value.astype(wide)) for a in arrays)


class TangentOfOneArgumentTwice(Tape):
    """Doubles the tangent when it is asked for one argument only, as with frozen weights."""

    def jvp(self, function, arrays, tangents):
        value, tangent = super().jvp(function, arrays, tangents)
        return value, self.array(tangent.value * 2) if len(arrays) == 1 else tangent


class TangentBesideZerosLost(Tape):
    """Returns a tangent of zeros if any of the given tangents is zero."""

    def jvp(self, function, arrays, tangents):
        value, tangent = super().jvp(function, arrays, tangents)
        if all(each.value.any() for each in tangents):
            return value, tangent
        return value, self.array(np.zeros_like(tangent.value))


class NotANumberOfGradientsZeroed(Tape):
    """Replaces infinities and NaN in gradients by zeros."""

    def vjp(self, function, arrays, cotangent):
        value, grads = super().vjp(function, arrays, cotangent)
        clean = lambda a: np.where(np.isfinite(a), a, 0).astype(a.dtype)  # noqa: E731
        return value, tuple(self.array(clean(each.value), each.parents) for each in grads)


class ChannelsFirstTransposed(Tape):
    """Transposes square inputs with channels first."""

    def move_axis(self, array, source, destination):
        moved = super().move_axis(array, source, destination)
        shape = moved.value.shape
        if destination == -1 and len(shape) == 4 and shape[1] == shape[2]:
            turned = moved.value.swapaxes(1, 2)
            back = lambda g: self.array(np.moveaxis(g.value.swapaxes(1, 2), -1, 1))  # noqa: E731
            return self.array(turned, ((array, back),))
        return moved


class NameIgnored(Tape):
    """Returns the operation `forward`, whichever map is asked for."""

    def close(self, implementation, entry, name="forward"):
        return super().close(implementation, entry)


class ProductsSummedInHalf(Tape):
    def product(self, subscripts, *arrays):
        return np.einsum(subscripts, *arrays).astype(arrays[0].dtype)


class ProductsOfAConstant(Tape):
    """Gives a gradient only to the first factor of a sum of products."""

    def einsum(self, subscripts, *arrays):
        y = super().einsum(subscripts, *arrays)
        return self.array(y.value, y.parents[:1])
