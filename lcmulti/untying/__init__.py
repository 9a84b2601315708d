"""What `untie`, `retie` and `ShareEvery` of every framework have in common."""

from lcmulti.untying.arguments import Arguments, Where
from lcmulti.untying.choosing import chosen, chosen_to_retie
from lcmulti.untying.example import arguments_of
from lcmulti.untying.planning import planned
from lcmulti.untying.table import Row, Untying, human
from lcmulti.untying.tying import require_same, shared_error, strength_of, tied, tolerance_of

__all__ = [
    "Arguments", "Row", "Untying", "Where", "arguments_of", "chosen", "chosen_to_retie",
    "human", "planned", "require_same", "shared_error", "strength_of", "tied", "tolerance_of",
]  # fmt: skip
