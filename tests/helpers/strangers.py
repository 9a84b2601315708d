"""Third-party plugins for tests."""

from types import ModuleType, SimpleNamespace

import pluggy

from lcmulti.plugins.contract import BackendEntry, ImplementationEntry

hookimpl = pluggy.HookimplMarker("lcmulti")


def backend_entry(name="stranger", **changes):
    fields = dict(
        name=name,
        load="lcmulti.numpy.backend:backend",
        package="numpy",
        array_types=("strange:Array",),
        install=f"pip install {name}",
    )
    return BackendEntry(**(fields | changes))


def implementation_entry(name="strange", backend="numpy", **changes):
    fields = dict(
        name=name,
        backend=backend,
        load="lcmulti.numpy.backend:reference_implementation",
        summary="a stranger's way",
    )
    return ImplementationEntry(**(fields | changes))


class Point:
    """What importlib.metadata returns for one entry point."""

    def __init__(self, distribution, plugin):
        self.name = self.value = f"{distribution}_plugin"
        self.dist = SimpleNamespace(name=distribution, version="9.8")
        self.plugin = plugin

    def load(self):
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin


def plugin_of(backends=(), implementations=()):
    plugin = ModuleType("plugin")
    plugin.lcmulti_backends = hookimpl(lambda: backends)
    plugin.lcmulti_implementations = hookimpl(lambda: implementations)
    return plugin
