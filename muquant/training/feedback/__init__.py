"""Feedback learning: find where a model is weak, and make examples there to train on.

examples = generate(model, dataset, FeedbackConfig(), seed=0, number=1)
larger = examples.extend(dataset)

generate.py    `generate`: the examples of one round
round.py       `FeedbackRound`: these, and what was learned about the classes
config.py      `FeedbackConfig`: every number
directions.py  in which directions the boundary is looked for
margins.py     how far it is along them
brackets.py    where along a ray the label changes
levels.py      the weaker a class, the more seed samples it gets
journal.py     what is left in a run's folder: a log of the rounds, and pictures
pictures.py    these pictures
"""

from muquant.training.feedback.config import FeedbackConfig
from muquant.training.feedback.directions import DIRECTIONS
from muquant.training.feedback.generate import generate, measure_class_margins
from muquant.training.feedback.levels import LEVELS, class_levels
from muquant.training.feedback.margins import Margins, margins
from muquant.training.feedback.round import FeedbackRound

__all__ = [
    "DIRECTIONS",
    "LEVELS",
    "FeedbackConfig",
    "FeedbackRound",
    "Margins",
    "class_levels",
    "generate",
    "margins",
    "measure_class_margins",
]
