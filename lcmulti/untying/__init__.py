"""What `untie`, `retie` and `ShareEvery` of every framework have in common."""

from lcmulti.untying.choosing import chosen
from lcmulti.untying.planning import planned
from lcmulti.untying.table import Row, Untying, human
from lcmulti.untying.tying import require_same, strength_of, tied, tolerance_of

__all__ = [
    "Row", "Untying", "chosen", "human", "planned", "require_same", "strength_of", "tied",
    "tolerance_of",
]  # fmt: skip
