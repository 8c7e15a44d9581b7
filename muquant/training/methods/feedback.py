"""Feedback learning: standard training on more and more examples of where the model was weak."""

import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from muquant.data import Dataset
from muquant.training.feedback import FeedbackConfig, generate, measure_class_margins
from muquant.training.methods.method import RunView
from muquant.training.methods.standard import Standard
from muquant.training.options.config import TrainingConfig

if TYPE_CHECKING:  # which needs matplotlib
    from muquant.training.feedback.journal import Journal


class Feedback(Standard):
    """The loss of standard training, on images and on examples that rounds of feedback learning add (Song,
    Fallon, Li, "Improving Adversarial Robustness in Weight-quantized Neural Networks", AAAI 2021).

    A round measures how far the images of each class are from the decision boundary, and places examples
    beyond it in the directions in which it is closest; they keep the label of the image they were made from.
    The folder `feedback` of the run gets a log of the rounds, and pictures.
    """

    def __init__(self, config: TrainingConfig, teacher: nn.Module | None = None) -> None:
        # late, as matplotlib takes half a second; here, so that nothing is trained where it is missing
        from muquant.training.feedback.journal import Journal

        super().__init__(config, teacher)
        self._open_journal = Journal
        self._rounds = self._options.round_epochs(config.epochs)

    @property
    def first_judged_epoch(self) -> int:
        """Only once the examples of all rounds are trained on is the model what was asked for."""
        return max(self._rounds) + 1

    def examples(self, run: RunView) -> Dataset | None:
        """Make a round before some of the epochs, and add its examples to those of the rounds before."""
        number = self._rounds.get(run.epoch)
        if number is None:
            return run.added
        began = time.monotonic()

        def on_progress(done: int, total: int) -> None:
            run.say(f"round {number} of {self._options.rounds}: {done}/{total} samples searched")

        made = generate(
            run.model, run.dataset, self._options, self.config.seed, number, on_progress=on_progress
        )
        self._journal(run).add_round(made, run.dataset, run.epoch, time.monotonic() - began)
        if not len(made):
            return run.added
        images, labels = made.images, made.labels
        if run.added is not None:
            images, labels = torch.cat((run.added.images, images)), torch.cat((run.added.labels, labels))
        return Dataset(run.dataset.name, "train", images, labels, run.dataset.classes)

    def finish(self, run: RunView) -> None:
        """Measure the classes once more."""
        began = time.monotonic()
        run.say("margins of the classes")
        number = self._options.rounds + 1
        margins = measure_class_margins(run.model, run.dataset, self._options, self.config.seed, number)
        self._journal(run).add_end(margins, run.epoch, time.monotonic() - began)

    @property
    def _options(self) -> FeedbackConfig:
        assert self.config.feedback is not None
        return self.config.feedback

    def _journal(self, run: RunView) -> "Journal":
        return self._open_journal(run.folder / "feedback", run.dataset.classes, self._options.cap)
