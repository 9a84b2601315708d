"""Import time, each in a fresh interpreter that has NumPy already."""


class Imports:
    """Time the imports that a program waits for before it computes."""

    def timeraw_lcmulti(self):
        return "import lcmulti", "import numpy"

    def timeraw_registry(self):
        return "from lcmulti.plugins import registry; registry()", "import numpy"

    def timeraw_command_line(self):
        return "from lcmulti.cli import main; import lcmulti.cli as c; c._parser()", "import numpy"


class Backend:
    """Time the loading of a backend whose framework is imported already."""

    params = ("torch", "jax", "tensorflow")
    param_names = ("backend",)

    def setup(self, backend):
        from .common import need

        need(backend)

    def timeraw_load(self, backend):
        return (
            f"from lcmulti import plugins; plugins.load_backend({backend!r})",
            f"import lcmulti, {backend}",
        )
