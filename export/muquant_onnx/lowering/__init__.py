"""From a graph with quantized weights to one that decodes them, each use by the form that a policy allows."""
