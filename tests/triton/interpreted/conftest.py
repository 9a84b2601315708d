"""Correct Triton's interpreter where it computes other numbers than a GPU, and watch its memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

BUILDER = interpreter.InterpreterBuilder


def _as_float32(data):
    return torch.from_numpy(data.view(np.int16).copy()).view(torch.bfloat16).float().numpy()


def _as_bfloat16(data):
    rounded = torch.from_numpy(np.ascontiguousarray(data, np.float32)).bfloat16()
    return rounded.view(torch.int16).numpy().view(np.uint16)


@pytest.fixture(autouse=True)
def mended(monkeypatch):
    """Correct bfloat16. The interpreter multiplies bit patterns, and its casts do not round."""
    cast, dot = BUILDER.cast_impl, BUILDER.create_dot

    def cast_impl(self, source, target):
        kinds = source.dtype.scalar, target.scalar
        if kinds == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(_as_bfloat16(source.data), tl.bfloat16)
        if kinds == (tl.bfloat16, tl.float32):
            return interpreter.TensorHandle(_as_float32(source.data), tl.float32)
        return cast(self, source, target)

    def create_dot(self, a, b, total, *rest):
        a, b = (cast_impl(self, x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x
                for x in (a, b))  # fmt: skip
        return dot(self, a, b, total, *rest)

    monkeypatch.setattr(BUILDER, "cast_impl", cast_impl)
    for name in ("create_fp_ext", "create_fp_trunc"):
        monkeypatch.setattr(BUILDER, name, cast_impl)
    monkeypatch.setattr(BUILDER, "create_fp_to_fp", lambda self, *cast: cast_impl(self, *cast[:2]))
    monkeypatch.setattr(BUILDER, "create_dot", create_dot)
    with np.errstate(invalid="ignore"):  # NumPy warns where infinities become NaN; a GPU does not
        yield


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Let the interpreter patch Triton's language once a launch, not at each call of a function."""
    patch, run, seen = interpreter._patch_lang, interpreter.GridExecutor.__call__, set()

    def launch(self, *arguments, **options):
        seen.clear()
        return run(self, *arguments, **options)

    def once(fn):
        found = fn.__globals__.values()
        languages = any(each is tl for each in found), any(each is tl.core for each in found)
        if languages in seen:
            return None
        seen.add(languages)
        return patch(fn)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launch)
    monkeypatch.setattr(interpreter, "_patch_lang", once)


class Watch:
    """Checks that kernels read and write only addresses of the arrays they were given."""

    def __init__(self):
        self.readable, self.writable = [], []
        self.written = None

    def hold_to(self, inputs, result):
        """Allow kernels to read *inputs* and to write each element of *result* once."""
        self.readable = [_span(each) for each in inputs]
        self.writable = [_span(result)]
        self.written = set()

    def check(self, addresses, mask, spans, what):
        used = addresses[np.broadcast_to(mask, addresses.shape)].astype(np.int64)
        ok = np.zeros(used.shape, bool)
        for start, stop in spans:
            ok |= (used >= start) & (used < stop)
        assert ok.all(), f"{what} outside the arrays: {used[~ok][:4]}, arrays at {spans}"
        return used


def _span(array):
    """Return the first address of *array* and the address after its last element."""
    size = array.element_size()
    reach = sum((n - 1) * step for n, step in zip(array.shape, array.stride(), strict=True))
    return array.data_ptr(), array.data_ptr() + (reach + 1) * size if array.numel() else 0


@pytest.fixture(autouse=True)
def watch(monkeypatch, mended):
    """Check every load and store after the test has called `Watch.hold_to`."""
    seen = Watch()
    load, store = BUILDER.create_masked_load, BUILDER.create_masked_store

    def create_masked_load(self, pointers, mask, *rest):
        if seen.written is not None:
            seen.check(pointers.data, mask.data, seen.readable, "read")
        return load(self, pointers, mask, *rest)

    def create_masked_store(self, pointers, value, mask, *rest):
        if seen.written is not None:
            used = seen.check(pointers.data, mask.data, seen.writable, "wrote")
            fresh = set(used.tolist())
            assert len(fresh) == used.size and not fresh & seen.written, "wrote an element twice"
            seen.written |= fresh
        return store(self, pointers, value, mask, *rest)

    monkeypatch.setattr(BUILDER, "create_masked_load", create_masked_load)
    monkeypatch.setattr(BUILDER, "create_masked_store", create_masked_store)
    return seen
