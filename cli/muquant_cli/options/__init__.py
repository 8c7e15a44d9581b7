"""Options of commands, and how their texts are read.

common.py       of several commands
format.py       of `compress` and `train`: the number format
training.py     of `train`: one for each field of a `TrainingConfig`
calibration.py  of `compress`: samples, and what they are for
budget.py       of `compress`: bytes, a drop, a plan
"""
