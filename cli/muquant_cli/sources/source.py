"""What a source gives."""

from dataclasses import dataclass

from torch import nn

from muquant.base.errors import InputError
from muquant.models.calls import Example


@dataclass(frozen=True, eq=False)
class Source:
    """A model that was named by a text.

    Attributes:
        module: in evaluation mode, on the CPU.
        example: an input of it, or its inputs; None where none is known.
        preprocess: images [N, C, H, W] in [0, 1] -> what `module` takes; None where it takes them as they
            are, or takes no images.
        kind: a name of `SOURCES`; `read_source` fills it in.
        text: by which it was named; `read_source` fills it in.
    """

    module: nn.Module
    example: Example | None = None
    preprocess: nn.Module | None = None
    kind: str = ""
    text: str = ""

    @property
    def on_images(self) -> nn.Module:
        """The model on images in [0, 1], as attacks make them, in evaluation mode."""
        return self.module if self.preprocess is None else nn.Sequential(self.preprocess, self.module).eval()

    def require_example(self) -> Example:
        """Return the example.

        Raises:
            InputError: none is known.
        """
        if self.example is None:
            raise InputError(
                f"{self.text} gives no example input, and one is needed; write a function that returns "
                "(module, example), and name it as pkg.module:function"
            )
        return self.example
