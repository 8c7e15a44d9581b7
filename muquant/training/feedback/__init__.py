"""Feedback learning: find where a model is weak, and make examples there to train on.

examples = generate(model, dataset, FeedbackConfig(), seed=0, number=1)
larger = examples.extend(dataset)
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
