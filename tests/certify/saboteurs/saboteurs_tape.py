"""A small framework, the tape, with derivatives of every order.

An array knows the arrays it was computed from, and functions that pull a cotangent back to them.
These functions use the same operations, so derivatives nest. A tangent is the derivative of the
gradient with respect to the cotangent.
"""

import numpy as np

from lcmulti.numpy.backend import NumpyBackend
from lcmulti.plugins.contract import Facts


class Array:
    def __init__(self, value, parents=()):
        self.value, self.parents = value, parents


def gradients(outputs, cotangents, leaves):
    """Pull the cotangents of *outputs* back to *leaves*."""
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
    """Sum *a* to *shape*: the adjoint of broadcasting."""
    extra = tuple(range(a.value.ndim - len(shape)))
    total = a.value.astype(np.result_type(a.value, "float32")).sum(extra)
    shared = tuple(i for i, n in enumerate(shape) if n == 1 and total.shape[i] != 1)
    total = total.sum(shared, keepdims=True).astype(a.value.dtype)
    return type(a)(total, ((a, lambda g: broadcast(g, a.value.shape)),))


def broadcast(a, shape):
    value = np.broadcast_to(a.value, shape).copy()
    return type(a)(value, ((a, lambda g: sum_to(g, a.value.shape)),))


def untake(a, indices, axis, size):
    """Add the elements of *a* at *indices* of an axis of *size*: the adjoint of `take`."""
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
    """The backend of the tape, which is right."""

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

    def einsum(self, subscripts, *arrays):
        terms, result = subscripts.split("->")
        terms = terms.split(",")
        value = self.product(subscripts, *(each.value for each in arrays))

        def back(g, place):
            others = [each for i, each in enumerate(terms) if i != place]
            operands = [each for i, each in enumerate(arrays) if i != place]
            term, shape = terms[place], arrays[place].value.shape
            absent = [
                i for i, letter in enumerate(term) if letter not in "".join([result, *others])
            ]
            repeats = self.array(np.ones([shape[i] for i in absent], value.dtype))
            others.append("".join(term[i] for i in absent))
            return self.einsum(f"{','.join([result, *others])}->{term}", g, *operands, repeats)

        parents = [(each, lambda g, i=i: back(g, i)) for i, each in enumerate(arrays)]
        return self.array(np.asarray(value), tuple(parents))

    def product(self, subscripts, *arrays):
        return super().einsum(subscripts, *arrays)

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
    """An implementation for NumPy whose maps take and return arrays of a tape."""

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
