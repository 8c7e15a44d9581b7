"""A run: its folder, its state, and the loop that goes through it step by step.

folder.py        `RunFolder`: the files of a run, and the finished model in them
state.py         where a run stands between two steps, and the checkpoint that holds it
data.py          the parts of its data: to train, validate and test on
training_set.py  what batches are drawn from: the training part, and images that a method has added
quantized.py     quantization-aware training: when it begins, what it adds to the loss
average.py       the mean of the weights over the last steps
best.py          the weights of the best epoch
step.py          `Stepper`: one optimisation step, and the optimizer
session.py       `TrainingSession`: the steps from where a run stands to its end
start.py         weights to begin with that are not random: those of a finished run
loop.py          `train`: all of it

Import from the modules: this file imports nothing.
"""
