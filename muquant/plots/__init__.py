"""Pictures of compressed weights and of what compression does."""

from muquant.plots.amplification import plot_amplification
from muquant.plots.weights import MAX_PANELS, plot_weights

__all__ = ["MAX_PANELS", "plot_amplification", "plot_weights"]
