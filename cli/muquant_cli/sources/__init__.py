"""Where a model comes from: a text that names it, such as "torchvision:resnet18", behind one registry."""

from muquant_cli.sources.registry import SOURCES, SourceKind, read_source, source_forms
from muquant_cli.sources.source import Source

__all__ = ["SOURCES", "Source", "SourceKind", "read_source", "source_forms"]
