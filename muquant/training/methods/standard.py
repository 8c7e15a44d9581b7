"""Standard training: the cross-entropy of the images as they are."""

from torch.nn import functional

from muquant.training.methods.method import Batch, BatchLoss, Method


class Standard(Method):
    """Cross-entropy with label smoothing, in float32 whatever the precision of the model."""

    def loss(self, batch: Batch) -> BatchLoss:
        """The loss of the images as they are."""
        logits = batch.model(batch.inputs).float()
        smoothing = self.config.label_smoothing
        return BatchLoss(functional.cross_entropy(logits, batch.targets, label_smoothing=smoothing), logits)
