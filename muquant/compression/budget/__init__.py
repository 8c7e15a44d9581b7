"""A width for each weight, so that all together keep within a budget and lose as little as they can.

curve.py      what a weight costs and loses at each width
probe.py      what its error does to the answers of the network, run with it
gradients.py  the same, of all weights in a few runs
measure.py    both, for all weights of a network
front.py      the plans that are worth having
limits.py     what a plan must keep within
answers.py    how many answers of a model change
plan.py       the plan, in memory and as a file
choose.py     the plan that keeps within the limits
spread.py     widths that are so many bits on average
"""

from muquant.compression.budget.curve import WidthCurve, WidthPoint
from muquant.compression.budget.plan import Drop, Plan, read_plan

__all__ = ["Drop", "Plan", "WidthCurve", "WidthPoint", "read_plan"]
