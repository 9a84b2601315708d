"""The overhead of a call, on the smallest arrays, with and without a cached plan."""

from .common import BACKENDS, need


class Spec:
    """Time the normalising of arguments."""

    def setup(self):
        import lcmulti

        self.make = lambda: lcmulti.LocalConvSpec(
            (32, 32, 3), 64, 3, strides=2, padding="same", data_format="channels_last"
        )
        assert self.make().output_shape == (16, 16, 64)

    def time_spec(self):
        self.make()

    def time_explain(self):
        import lcmulti

        lcmulti.explain(self.make(), batch=32, backend="numpy")


class Dispatch:
    """Time eager `lcmulti.local_conv` from the arguments to the implementation and back."""

    params = (BACKENDS,)
    param_names = ("backend",)

    def setup(self, backend):
        need(backend)
        import numpy as np

        import lcmulti
        from lcmulti import plugins
        from lcmulti.choosing import dispatch, framework
        from lcmulti.operations import local_conv as functional

        owner = plugins.load_backend(backend)
        x, kernel = (owner.from_numpy(np.ones(s, "float32")) for s in ((1, 2, 1), (2, 1, 1, 1)))
        self.call = lambda: lcmulti.local_conv(x, kernel, data_format="channels_last")
        assert (owner.to_numpy(self.call()) == 1).all()
        self.caches = framework._named, dispatch._plan
        self.calls = functional.calls

    def time_warm(self, backend):
        self.call()

    def time_cold(self, backend):
        """Call with shapes that have no cached plan."""
        for cache in self.caches:
            cache.cache_clear()
        self.calls.clear()
        self.call()
