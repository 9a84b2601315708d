"""Instances of the tape and of its wrong backends, each with its own array type and maps."""

import saboteurs_backends
import saboteurs_tape
from saboteurs_table import BACKENDS

from lcmulti.numpy.backend import blocked

for _name in ("Tape", *BACKENDS):
    _array = type(f"{_name}Array", (saboteurs_tape.Array,), {})
    _backend = getattr(saboteurs_backends, _name)()
    _backend.array = _array
    globals()[_name] = _backend
    globals()[f"{_name}Array"] = _array
    globals()[f"{_name}Blocked"] = saboteurs_tape.ImplementationOnTape(blocked, _array)
