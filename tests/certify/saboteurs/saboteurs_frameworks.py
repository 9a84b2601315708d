"""Implementations for PyTorch, JAX and TensorFlow that are wrong in ways special to a framework.

Each is made from the framework's ``composed`` when it is asked for, so that no other framework is
imported.
"""

from lcmulti import plugins


class Honest:
    """Returns what ``composed`` returns."""

    def __init__(self, backend):
        self.inner = plugins.load_implementation(backend, "composed")
        self.workspace = self.inner.workspace

    def decline(self, problem):
        return self.inner.decline(problem)

    def forward(self, x, kernel, spec, resources):
        return self.changed(self.inner.forward(x, kernel, spec, resources), x)

    def input_grad(self, dy, kernel, spec, resources):
        return self.inner.input_grad(dy, kernel, spec, resources)

    def kernel_grad(self, x, dy, spec, resources):
        return self.inner.kernel_grad(x, dy, spec, resources)

    def changed(self, y, x):
        return y


class TangentDropped(Honest):
    """Is declared transformable, but detaches the kernel."""

    def forward(self, x, kernel, spec, resources):
        return self.inner.forward(x, kernel.detach(), spec, resources)


class WrongWhenCompiled(Honest):
    def changed(self, y, x):
        import torch

        return y * 1.01 if torch.compiler.is_compiling() else y


class WrongWhenMapped(Honest):
    def changed(self, y, x):
        import torch

        return y * 1.01 if torch._C._are_functorch_transforms_active() else y


class ContiguousTensorsAssumed(Honest):
    def forward(self, x, kernel, spec, resources):
        if x.untyped_storage().nbytes() >= x.numel() * x.element_size() and x.numel():
            steps, step = [], 1
            for n in reversed(x.shape):
                steps.insert(0, step)
                step *= n
            if x.storage_offset() == 0:
                x = x.as_strided(x.shape, steps)
        return self.inner.forward(x, kernel, spec, resources)


class PrecisionSet(Honest):
    """Changes PyTorch's precision of matrix products for the whole process."""

    def changed(self, y, x):
        import torch

        torch.set_float32_matmul_precision(
            "high" if torch.get_float32_matmul_precision() == "highest" else "highest"
        )
        return y


class TorchRandomStateUsed(Honest):
    def changed(self, y, x):
        import torch

        return y + 0 * torch.rand(())


class FirstKernelWhenMapped(Honest):
    """Uses the first kernel for all when `vmap` maps over kernels only."""

    def forward(self, x, kernel, spec, resources):
        from torch._C import _functorch as mapped

        if mapped.is_batchedtensor(kernel) and not mapped.is_batchedtensor(x):
            kernel = mapped.get_unwrapped(kernel).select(mapped.maybe_get_bdim(kernel), 0)
        return self.inner.forward(x, kernel, spec, resources)


class PackedParameters(Honest):
    """Packs a kernel once for each version, although changes through `.data` do not count."""

    def __init__(self, backend):
        super().__init__(backend)
        self.packed = {}

    def forward(self, x, kernel, spec, resources):
        key = kernel.data_ptr(), kernel._version, kernel.shape, kernel.dtype
        packed = self.packed.setdefault(key, kernel.detach().clone())
        return self.inner.forward(x, packed, spec, resources)


class DefaultTypeAssumed(Honest):
    def changed(self, y, x):
        import torch

        return y + torch.zeros(y.shape, device=y.device)


class DefaultDeviceAssumed(Honest):
    def changed(self, y, x):
        import torch

        return y + torch.zeros(y.shape, dtype=y.dtype)


class PromotedUnder64Bits(Honest):
    def changed(self, y, x):
        import jax.numpy as jnp

        return y * jnp.ones(())


class ZerosInInference(Honest):
    def changed(self, y, x):
        import torch

        return y * 0 if torch.is_inference_mode_enabled() else y


class WrongInGraphs(Honest):
    def changed(self, y, x):
        import tensorflow as tf

        return y if tf.executing_eagerly() else y * tf.cast(1.01, y.dtype)


class WrongForUnknownBatch(Honest):
    def changed(self, y, x):
        return y if isinstance(x.shape[0], int) else y * 1.01


class WrongWithOneThread(Honest):
    """Is wrong where PyTorch has one thread, as in a worker of a DataLoader."""

    def changed(self, y, x):
        import torch

        return y * 1.01 if torch.get_num_threads() == 1 else y


class WrongUnderNestedVmap(Honest):
    """Is wrong where `vmap` is nested."""

    def changed(self, y, x):
        from torch._C import _functorch as mapped

        levels, seen = 0, y
        while mapped.is_batchedtensor(seen):
            levels, seen = levels + 1, mapped.get_unwrapped(seen)
        return y * 1.01 if levels > 1 else y


class WrongForManyExportedSamples(Honest):
    """Is wrong in exported programs for batches over the size assumed while it is unknown."""

    def changed(self, y, x):
        over = x.shape[0] // 1025
        return y if isinstance(over, int) else y + 0.01 * over * y


class NegationForgotten(Honest):
    """Reads the memory of a lazily negated tensor. (Conjugates are resolved by the backend.)"""

    def input_grad(self, dy, kernel, spec, resources):
        kernel = -kernel if kernel.is_neg() else kernel
        return self.inner.input_grad(dy, kernel, spec, resources)


class RoundedWhereAllowed(Honest):
    """Rounds to bfloat16 where PyTorch's switch allows it for matrix products."""

    def changed(self, y, x):
        import torch

        rounds = torch.get_float32_matmul_precision() != "highest"
        return y.bfloat16().to(y.dtype) if rounds and y.dtype == torch.float32 else y


class RoundedByDefault(Honest):
    """Rounds to bfloat16 where JAX's default precision of products is set."""

    def changed(self, y, x):
        import jax
        import jax.numpy as jnp

        rounds = jax.config.jax_default_matmul_precision is not None
        return y.astype(jnp.bfloat16).astype(y.dtype) if rounds else y


class WrongForManySamplesInGraphs(Honest):
    def changed(self, y, x):
        import tensorflow as tf

        if tf.executing_eagerly():
            return y
        return tf.where(tf.shape(x)[0] > 1024, y * tf.cast(1.01, y.dtype), y)


def __getattr__(name):
    """Make the implementation of a name such as ``torch_tangent_dropped``."""
    backend, _, rest = name.partition("_")
    kind = globals().get(rest.title().replace("_", ""))
    if kind is None:
        raise AttributeError(name)
    return kind(backend)
