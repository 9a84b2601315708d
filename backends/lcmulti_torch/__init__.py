"""lcmulti in PyTorch: `LocallyConnected1d`, `2d`, `3d`, their transposed and lazy variants.

Importing this package does not import PyTorch. The backend is loaded by the first call with
tensors, and the layers when they are first used.
"""

from typing import TYPE_CHECKING

__all__ = [
    "LazyLocallyConnected1d",
    "LazyLocallyConnected2d",
    "LazyLocallyConnected3d",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "LocallyConnected3d",
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
    "ShareEvery",
    "functional",
    "fuse_bn",
    "retie",
    "untie",
]

if TYPE_CHECKING:  # for type checkers and editors
    from lcmulti_torch import functional
    from lcmulti_torch.fusing import fuse_bn
    from lcmulti_torch.layers import LocallyConnected1d, LocallyConnected2d, LocallyConnected3d
    from lcmulti_torch.lazy import (
        LazyLocallyConnected1d,
        LazyLocallyConnected2d,
        LazyLocallyConnected3d,
    )
    from lcmulti_torch.retying import retie
    from lcmulti_torch.sharing import ShareEvery
    from lcmulti_torch.transposed import (
        LocallyConnectedTranspose1d,
        LocallyConnectedTranspose2d,
        LocallyConnectedTranspose3d,
    )
    from lcmulti_torch.untying import untie
else:
    from importlib import import_module

    _HOMES = {"ShareEvery": "sharing", "fuse_bn": "fusing", "retie": "retying", "untie": "untying"}

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        kind = "lazy" if "Lazy" in name else "transposed" if "Transpose" in name else "layers"
        home = name if name == "functional" else _HOMES.get(name, kind)
        try:
            module = import_module(f"{__name__}.{home}")
        except ModuleNotFoundError as error:
            from lcmulti_torch.missing import missing

            raise missing(f"{__name__}.{name}", error) from error
        return module if name == "functional" else getattr(module, name)

    def __dir__():
        return sorted({*globals(), *__all__})
