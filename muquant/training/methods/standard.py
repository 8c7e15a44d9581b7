"""Standard training: the cross-entropy of the images as they are."""

from torch.nn import functional

from muquant.training.methods.batch import Batch, BatchLoss


def standard(batch: Batch) -> BatchLoss:
    """Cross-entropy with label smoothing, in float32 whatever the precision of the model."""
    logits = batch.model(batch.inputs).float()
    loss = functional.cross_entropy(logits, batch.labels, label_smoothing=batch.config.label_smoothing)
    return BatchLoss(loss, logits)
