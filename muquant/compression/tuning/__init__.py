"""A short distillation of a compressed network towards the float one, on samples without labels.

tune.py      `tune`
subject.py   what is tuned, how, and what becomes of it
training.py  the training, which held-out samples judge
latent.py    a weight that can be trained, from its codes and back to codes
loss.py      what is made small
report.py    how it went, in figures and words
watch.py     runs of a network that tell hidden states too
state.py     a training under way in a file
modules.py   a module as a subject
"""

from muquant.compression.tuning.modules import batches_of, may_move, subject_of
from muquant.compression.tuning.report import TuningReport
from muquant.compression.tuning.state import TuningState
from muquant.compression.tuning.subject import Rates, Subject, Tuned
from muquant.compression.tuning.tune import tune

__all__ = [
    "Rates",
    "Subject",
    "Tuned",
    "TuningReport",
    "TuningState",
    "batches_of",
    "may_move",
    "subject_of",
    "tune",
]
