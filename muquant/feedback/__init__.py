"""Feedback learning: find where a model is weak, and make examples there to train on.

examples = generate(model, dataset, FeedbackConfig(), seed=0, number=1)
larger = examples.extend(dataset)
"""

from muquant.feedback.config import FeedbackConfig
from muquant.feedback.directions import DIRECTIONS
from muquant.feedback.generate import generate, measure_class_margins
from muquant.feedback.levels import LEVELS, class_levels
from muquant.feedback.margins import Margins, margins
from muquant.feedback.round import FeedbackRound

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
