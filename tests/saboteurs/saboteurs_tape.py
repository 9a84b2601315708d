"""A framework of a few lines, with derivatives of every order; and backends of it that are wrong.

An array remembers what it was computed from, and how a cotangent travels back. Travelling back
is made of the same operations, so derivatives nest. A tangent is the derivative of the gradient
along a cotangent that is a variable.
"""

import numpy as np

from lcmulti.backend import Facts
from lcmulti.numpy_backend import NumpyBackend


class Array:
    def __init__(self, value, parents=()):
        self.value, self.parents = value, parents


def gradients(outputs, cotangents, leaves):
    """What the cotangents of *outputs* are at *leaves*."""
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent, _ in () if node in leaves else node.parents:
                visit(parent)
            order.append(node)

    for each in outputs:
        visit(each)
    found = {}
    for each, cotangent in zip(outputs, cotangents, strict=True):
        found[id(each)] = plus(found.get(id(each)), cotangent)
    for node in reversed(order):
        if node in leaves or id(node) not in found:
            continue
        for parent, pull_back in node.parents:
            found[id(parent)] = plus(found.get(id(parent)), pull_back(found[id(node)]))
    return tuple(found.get(id(leaf), type(leaf)(np.zeros_like(leaf.value))) for leaf in leaves)


def plus(a, b):
    return b if a is None else type(b)(a.value + b.value, ((a, lambda g: g), (b, lambda g: g)))


def sum_to(a, shape):
    """The adjoint of broadcasting."""
    extra = tuple(range(a.value.ndim - len(shape)))
    total = a.value.astype(np.result_type(a.value, "float32")).sum(extra)
    shared = tuple(i for i, n in enumerate(shape) if n == 1 and total.shape[i] != 1)
    total = total.sum(shared, keepdims=True).astype(a.value.dtype)
    return type(a)(total, ((a, lambda g: broadcast(g, a.value.shape)),))


def broadcast(a, shape):
    value = np.broadcast_to(a.value, shape).copy()
    return type(a)(value, ((a, lambda g: sum_to(g, a.value.shape)),))


def untake(a, indices, axis, size):
    """The adjoint of take."""
    shape = list(a.value.shape)
    shape[axis] = size
    total = np.zeros(shape, np.result_type(a.value, "float32"))
    np.add.at(np.moveaxis(total, axis, 0), indices, np.moveaxis(a.value, axis, 0))
    value = total.astype(a.value.dtype)
    return type(a)(value, ((a, lambda g: take(g, indices, axis)),))


def take(a, indices, axis):
    size = a.value.shape[axis]
    value = np.take(a.value, indices, axis)
    return type(a)(value, ((a, lambda g: untake(g, indices, axis, size)),))


RULES = {
    "forward": (("input_grad", "gb"), ("kernel_grad", "ag")),
    "input_grad": (("forward", "gb"), ("kernel_grad", "ga")),
    "kernel_grad": (("input_grad", "bg"), ("forward", "ag")),
}


class Tape(NumpyBackend):
    """An honest backend."""

    array = Array
    rules = RULES

    def facts(self, array, batched=False):
        return Facts(array.value.shape, array.value.dtype.name, "cpu")

    def from_numpy(self, array, like=None):
        return self.array(array)

    def to_numpy(self, array):
        return array.value

    def move_axis(self, array, source, destination):
        value = np.moveaxis(array.value, source, destination)
        back = lambda g: self.move_axis(g, destination, source)  # noqa: E731
        return self.array(value, ((array, back),))

    def take(self, array, indices, axis):
        return take(array, indices, axis)

    def add(self, y, bias):
        value = y.value + bias.value
        back = lambda g: sum_to(g, bias.value.shape)  # noqa: E731
        return self.array(value, ((y, lambda g: g), (bias, back)))

    def close(self, implementation, entry, name="forward"):
        def compute(name, a, b, *rest):
            pairs = []
            for operand, (rule, order) in zip((a, b), self.rules[name], strict=True):

                def back(g, rule=rule, order=order):
                    operands = {"a": a, "b": b, "g": g}
                    return compute(rule, operands[order[0]], operands[order[1]], *rest)

                pairs.append((operand, back))
            return self.array(getattr(implementation, name)(a, b, *rest).value, tuple(pairs))

        return lambda x, kernel, *rest: compute(name, x, kernel, *rest)

    def vjp(self, function, arrays, cotangent):
        leaves = tuple(self.array(each.value, ((each, lambda g: g),)) for each in arrays)
        value = function(*leaves)
        return value, gradients((value,), (cotangent,), leaves)

    def jvp(self, function, arrays, tangents):
        value = function(*arrays)
        variable = self.array(np.zeros_like(value.value))
        _, grads = self.vjp(function, arrays, variable)
        return value, gradients(grads, tangents, (variable,))[0]


class ImplementationOnTape:
    """The three maps of an implementation for NumPy, with arrays of a tape."""

    def __init__(self, maps, array):
        self.maps, self.array = maps, array
        self.decline, self.workspace = maps.decline, maps.workspace

    def _map(self, name, a, b, rest):
        return self.array(getattr(self.maps, name)(a.value, b.value, *rest))

    def forward(self, x, kernel, *rest):
        return self._map("forward", x, kernel, rest)

    def input_grad(self, dy, kernel, *rest):
        return self._map("input_grad", dy, kernel, rest)

    def kernel_grad(self, x, dy, *rest):
        return self._map("kernel_grad", x, dy, rest)


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
    """A sign that only the second order uses."""

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
    """Gradients that are constants to whoever differentiates them."""

    def vjp(self, function, arrays, cotangent):
        value, grads = super().vjp(function, arrays, cotangent)
        return value, tuple(self.array(each.value) for each in grads)


class CotangentIgnored(Tape):
    """The gradient of the sum, whatever is asked along."""

    def vjp(self, function, arrays, cotangent):
        ones = self.array(np.ones_like(cotangent.value))
        return super().vjp(function, arrays, ones)


class BiasDropped(Tape):
    def add(self, y, bias):
        return self.array(
            y.value, ((y, lambda g: g), (bias, lambda g: sum_to(g, bias.value.shape)))
        )


class BiasShared(Tape):
    """The first position's bias for all, as a convolution has it."""

    def add(self, y, bias):
        axes = tuple(range(bias.value.ndim - 1))
        first = bias.value[(slice(0, 1),) * len(axes)]
        return super().add(y, self.array(np.broadcast_to(first, bias.value.shape).copy()))


class BiasReshaped(Tape):
    """Filters first by reshaping, as Keras 2 adds it to channels-first arrays."""

    def add(self, y, bias):
        value = bias.value
        turned = np.moveaxis(value.reshape(value.shape[-1], *value.shape[:-1]), 0, -1).copy()
        back = lambda g: sum_to(g, value.shape)  # noqa: E731
        return super().add(y, self.array(turned, ((bias, back),)))


class BiasGradientNotSummed(Tape):
    """Of a shared bias, the first position's gradient."""

    def add(self, y, bias):
        def first(g):
            wanted = bias.value.shape
            value = g.value.sum(0)[tuple(slice(0, n) for n in wanted)]
            return self.array(value.astype(g.value.dtype))

        return self.array(y.value + bias.value, ((y, lambda g: g), (bias, first)))


class PaddingGradientLost(Tape):
    """What padded positions repeat gets the gradient of the last of them."""

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
    """Padding that repeats the border, whatever the mode."""

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
    """No float64, in silence."""

    def from_numpy(self, array, like=None):
        array = array.astype("float32").astype("float64") if array.dtype == "float64" else array
        return self.array(array)


class OtherErrors(Tape):
    """Speaks before lcmulti can."""

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
    """Twice the bias' gradient, where it is shared along some axis and not along all."""

    def add(self, y, bias):
        ones = [n == 1 for n in bias.value.shape[:-1]]
        times = 2 if any(ones) and not all(ones) else 1

        def back(g):
            return self.array(sum_to(g, bias.value.shape).value * times)

        return self.array(y.value + bias.value, ((y, lambda g: g), (bias, back)))


class GradientsTogetherOnly(Tape):
    """Asked for the kernel's gradient alone, as with a first layer, gives another."""

    def vjp(self, function, arrays, cotangent):
        value, grads = super().vjp(function, arrays, cotangent)
        if len(arrays) == 1:
            grads = tuple(self.array(each.value * 2) for each in grads)
        return value, grads


class TangentOfDouble(Tape):
    """A tangent in float64 whatever the value is in."""

    def jvp(self, function, arrays, tangents):
        value, tangent = super().jvp(function, arrays, tangents)
        wide = np.result_type(tangent.value, "float64")
        return value, self.array(tangent.value.astype(wide))


class OneImplementationForAll(Tape):
    """Closes the implementation that it likes, not the one it was given."""

    def close(self, implementation, entry, name="forward"):
        from lcmulti.numpy_backend import blocked

        return super().close(ImplementationOnTape(blocked, self.array), entry, name)


class ClaimsNothing(Tape):
    """Declares no differentiation, and has one that is wrong."""

    def vjp(self, function, arrays, cotangent):
        value, grads = super().vjp(function, arrays, cotangent)
        return value, tuple(self.array(each.value * 2) for each in grads)


class IntegersAccepted(Tape):
    """Casts what it should refuse."""

    def prepare(self, arrays):
        return tuple(
            each
            if each is None or not isinstance(each, Array) or each.value.dtype.kind in "fcV"
            else self.array(each.value.astype("float32"))
            for each in arrays
        )


class MixedTypesPromoted(Tape):
    """Makes dtypes alike that are not."""

    def prepare(self, arrays):
        if not all(each is None or isinstance(each, Array) for each in arrays):
            return arrays
        kinds = [each.value.dtype for each in arrays if each is not None]
        if len(set(kinds)) == 1 or not all(kind.kind in "fc" for kind in kinds):
            return arrays
        wide = np.result_type(*kinds)
        return tuple(None if a is None else self.array(a.value.astype(wide)) for a in arrays)


class ChannelsFirstTransposed(Tape):
    """Square inputs with channels first are turned."""

    def move_axis(self, array, source, destination):
        moved = super().move_axis(array, source, destination)
        shape = moved.value.shape
        if destination == -1 and len(shape) == 4 and shape[1] == shape[2]:
            turned = moved.value.swapaxes(1, 2)
            back = lambda g: self.array(np.moveaxis(g.value.swapaxes(1, 2), -1, 1))  # noqa: E731
            return self.array(turned, ((array, back),))
        return moved
