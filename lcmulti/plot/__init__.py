"""Pictures of the weights of locally connected layers; needs matplotlib, the extra ``report``.

`mosaic` shows the filters of every position. `statistic_map` shows one number of each filter, over
positions or over a sheet. `receptive_field` shows the inputs in the window of a position. All take
arrays and variables of any framework.
"""

from lcmulti.plot.pictures import mosaic, receptive_field, statistic_map
from lcmulti.plot.statistics import STATISTICS, statistic

__all__ = ["STATISTICS", "mosaic", "receptive_field", "statistic", "statistic_map"]
