"""A backend for array-api-strict: it describes arrays and spells seven operations."""

import array_api_strict as xp
import numpy as np

from lcmulti.algorithms.composed import Composed
from lcmulti.numpy.backend import NumpyBackend
from lcmulti.plugins.contract import Facts


class StrictBackend(NumpyBackend):
    """`lcmulti.backend.Backend`, where this library differs from NumPy."""

    def facts(self, array, batched=False):
        return Facts(array.shape, str(array.dtype).rpartition(".")[2], "cpu")

    def from_numpy(self, array, like=None):
        return xp.asarray(array, copy=True)

    def to_numpy(self, array):
        return np.array(array)

    def move_axis(self, array, source, destination):
        return xp.moveaxis(array, source, destination)

    def take(self, array, indices, axis):
        return xp.take(array, xp.asarray(indices), axis=axis)

    def einsum(self, subscripts, *arrays):
        product = np.einsum(subscripts, *map(np.array, arrays))  # the standard has none
        return xp.asarray(np.asarray(product))


class StrictOps:
    """`lcmulti.composed.ArrayOps`. The arrays themselves have slicing and ``+``."""

    def reshape(self, array, shape):
        known = int(np.prod([n for n in shape if n != -1]))
        return xp.reshape(array, tuple(array.size // known if n == -1 else n for n in shape))

    def permute(self, array, axes):
        return xp.permute_dims(array, axes)

    def stack(self, arrays, axis):
        return xp.stack(arrays, axis=axis)

    def pad(self, array, pairs):
        for axis, pair in enumerate(pairs):
            if not any(pair):
                continue  # padding by nothing would be a copy
            low, high = (
                xp.zeros((*array.shape[:axis], n, *array.shape[axis + 1 :]), dtype=array.dtype)
                for n in pair
            )
            array = xp.concat([low, array, high], axis=axis)
        return array

    def matmul(self, a, b, transpose_a=False, transpose_b=False):
        return (a.mT if transpose_a else a) @ (b.mT if transpose_b else b)

    def widen(self, array):
        return array  # the standard has no half types

    def narrow(self, array, like):
        return array


class StrictComposed(Composed):
    """The standard asks for one entry of an index for every axis."""

    def cut(self, array, index):
        return array[(*index, ...)]


backend = StrictBackend()
composed = StrictComposed(StrictOps())
