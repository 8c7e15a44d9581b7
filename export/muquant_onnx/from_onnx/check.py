"""The answers of an ONNX file under stock onnxruntime, before and after compression."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import psutil
import torch
from torch import Tensor

from muquant.base.errors import InputError, first_line
from muquant.base.text import byte_size
from muquant.compression.answers.compare import FloatAnswers
from muquant.compression.answers.modules import first_batches
from muquant.compression.answers.report import HELD_OUT, SYNTHETIC, AnswersCheck
from muquant.compression.options import CompressionOptions
from muquant.models.calls import output_tensors
from muquant_onnx.from_onnx.feeds import Batch, Feed, Feeds
from muquant_onnx.from_onnx.made_up import Answered, made_up, resemble, whole_inputs
from muquant_onnx.from_onnx.states import is_state
from muquant_onnx.serving.sessions import load_session

_MADE_UP = 8
_MEMORY = 6
"""onnxruntime may take so many times the float file's bytes while it folds the decoders of the new one."""


def ask_file(path: Path, graph: ir.Graph, nbytes: int, options: CompressionOptions) -> FloatAnswers[Batch]:
    """Run a file before it is compressed: on the held-out samples where there are samples, else on inputs
    made up from the types and shapes that it states.

    Args:
        path: of the float file.
        graph: that was read from it.
        nbytes: its size with external data: the whole of it is in memory while it runs.
        options: of its compression.

    Raises:
        InputError: samples do not fit the graph.
    """
    available = psutil.virtual_memory().available
    if _MEMORY * nbytes > available:
        return FloatAnswers(
            not_checked=f"onnxruntime may need {byte_size(_MEMORY * nbytes)} of memory to run both, and "
            f"{byte_size(available)} are free"
        )
    held_out = None if options.samples is None else Feeds.of(graph, options.samples[1], path)
    try:
        run = SessionRun(load_session(path))
        if held_out is None:
            made = run.made_up(graph, _MADE_UP)
            answered = ((Batch(feed, 1), run.named(outputs), 1) for feed, outputs in made)
            return FloatAnswers.of(answered, run, SYNTHETIC)
        batches = first_batches(held_out.batches, lambda batch: batch.count)
        return FloatAnswers.of(((batch, run(batch), batch.count) for batch in batches), run, HELD_OUT)
    except Exception as error:  # onnxruntime's errors have no common base
        return FloatAnswers(not_checked=first_line(error))


def check_file(path: Path, exact: FloatAnswers[Batch]) -> AnswersCheck:
    """Compare a compressed file with what `ask_file` has found.

    Raises:
        InputError: onnxruntime does not run it where it runs the float one.
    """
    if exact.not_checked:
        return AnswersCheck(not_checked=exact.not_checked)
    try:
        return exact.beside(SessionRun(load_session(path)))
    except Exception as error:  # likewise
        raise InputError(
            f"{path} was written, but onnxruntime does not run it on {exact.inputs}, and the float file it "
            f"does: {first_line(error)}; find out why, or leave the check out (check=False, --no-check)"
        ) from error


@dataclass(frozen=True, eq=False)
class SessionRun:
    """Runs a session as `FloatAnswers` wants it."""

    session: ort.InferenceSession

    def __call__(self, batch: Batch) -> list[tuple[str, Tensor]]:
        """Return the outputs for a batch, of its own samples alone."""
        return self.named(batch.own(self.session.run(None, batch.feed)))

    def named(self, outputs: Sequence[Any]) -> list[tuple[str, Tensor]]:
        """Return all tensors among the outputs with their names; those of texts as check sums of these."""
        names = [output.name for output in self.session.get_outputs()]
        return output_tensors(dict(zip(names, map(_as_tensors, outputs), strict=True)))

    def made_up(self, graph: ir.Graph, count: int) -> Iterator[Answered]:
        """Yield inputs that are made up for `graph`, which the session runs, and its outputs."""
        states = [str(value.name) for value in graph.inputs if is_state(value, graph)]
        return made_up(self.session, count, whole_inputs(graph), self.tells, states)

    def in_place_of_samples(self, graph: ir.Graph, count: int) -> list[Feed]:
        """Return inputs that are made up for `graph`, where a network may be shaped by such; else none."""
        states = [str(value.name) for value in graph.inputs if is_state(value, graph)]
        feeds = [feed for feed, _ in self.made_up(graph, count)]
        alike = feeds and resemble(feeds[0], whole_inputs(graph), states)
        return feeds if alike else []

    def tells(self, outputs: Sequence[Any]) -> bool:
        """Whether no output is NaN or infinite all over."""
        tensors = [tensor for _, tensor in self.named(outputs) if tensor.is_floating_point()]
        return all(not tensor.numel() or bool(tensor.isfinite().any()) for tensor in tensors)


def _as_tensors(output: Any) -> Any:
    """Return an output, which may be a sequence or a map, with a tensor for each array or number."""
    if isinstance(output, list):
        return [_as_tensors(each) for each in output]
    if isinstance(output, dict):
        return {key: _as_tensors(each) for key, each in output.items()}
    array = np.asarray(output)
    if array.dtype.kind in "OUS":
        array = np.vectorize(lambda text: zlib.crc32(str(text).encode()), otypes=[np.int64])(array)
    return torch.from_numpy(array)
