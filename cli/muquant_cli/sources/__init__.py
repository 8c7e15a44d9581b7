"""Where a model comes from: a text that names it, such as "torchvision:resnet18", behind one registry.

registry.py            `read_source`, and the one table of kinds
source.py              `Source`: the model, an example of its input, how images are prepared for it
run_folder.py          what `muquant train` made
torchvision_model.py   torchvision:NAME
timm_model.py          timm:NAME
robustbench_model.py   robustbench:NAME
factory.py             pkg.module:function, which is run
state.py               other weights for it, from a file
names.py               names out of long lists
artifacts.py           a .mq file with the model that its weights belong to
candidates.py          what `muquant bench` attacks: any of these, a .mq or an .onnx file
"""

from muquant_cli.sources.registry import SOURCES, SourceKind, read_source, source_forms
from muquant_cli.sources.source import Source

__all__ = ["SOURCES", "Source", "SourceKind", "read_source", "source_forms"]
