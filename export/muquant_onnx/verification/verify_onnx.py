"""Prove that a compressed ONNX file computes what its codes stand for, under each runtime."""

import os
from collections.abc import Sequence
from pathlib import Path

from muquant.base.errors import InputError, first_line
from muquant.compression.answers.compare import FloatAnswers
from muquant.compression.answers.report import SYNTHETIC
from muquant.compression.calibration import Calibration, Samples, read_samples
from muquant_onnx.from_onnx.check import SessionRun
from muquant_onnx.from_onnx.feeds import Batch, Feed, Feeds
from muquant_onnx.from_onnx.opset import raised
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.serving.read import read_consistent
from muquant_onnx.serving.sessions import load_session
from muquant_onnx.verification.parity import Array
from muquant_onnx.verification.runners.child import is_numbers
from muquant_onnx.verification.runtimes import Answers, check_runtimes, chosen_runtimes
from muquant_onnx.verification.verify import VerifyReport, policies_for

GIVEN = "samples"
_MADE_UP = 8


def verify_onnx(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    samples: Calibration | Samples | None = None,
    runtimes: Sequence[str] = ("onnxruntime",),
) -> VerifyReport:
    """Compare a compressed ONNX file with what its codes stand for, and with the float file behind it.

    Outputs have to be those of the file under onnxruntime with its weights decoded by numpy, whatever the
    file says about decoding. How far these are from the float file's answers is in `answers` of the report,
    and fails nothing.

    Args:
        source: the float ONNX file.
        path: what `compress_onnx` made of it.
        samples: what to run both on, as `compress_onnx` takes it for its calibration; None for inputs that
            are made up from the types and shapes of `source`.
        runtimes: see `verify`.

    Raises:
        InputError: a file cannot be read, the samples do not fit, onnxruntime runs one of the files on none
            of the inputs, or a runtime is unknown or not installed.
    """
    chosen_runtimes(runtimes)  # before any work is done
    source, path = Path(source), Path(path)
    grids = {weight.spec.grid_name for weight in read_consistent(path).weights.values()}
    exact = _float_answers(source, samples)
    decoded = SessionRun(load_session(path, policy="float"))
    feeds = [batch.feed for batch, _, _ in exact.batches]
    expected = [_numbers(path, decoded, feed) for feed in feeds]
    batch, answered, count = exact.batches[0]
    if len(answered) != len(expected[0]):
        raise InputError(
            f"{path} has {len(expected[0])} outputs, and {source} has {len(answered)}; name the file that "
            "was made from it"
        )
    answers = Answers(feeds, expected, {count: batch.feed})
    found = check_runtimes(path, source, policies_for(grids), answers, runtimes)
    return VerifyReport((), found.runtimes, exact.count, found.floats, found.missing, exact.beside(decoded))


def _float_answers(source: Path, samples: Calibration | Samples | None) -> FloatAnswers[Batch]:
    """Return inputs, and what the float file answers."""
    with raised(source) as file:
        graph = read_graph(file.path).model.graph
        run = SessionRun(load_session(source))
        if samples is None:
            made = run.made_up(graph, _MADE_UP)
            answered = ((Batch(feed, 1), run.named(outputs), 1) for feed, outputs in made)
            exact = FloatAnswers.of(answered, run, SYNTHETIC)
        else:
            batches = Feeds.of(graph, read_samples(samples), source).batches
            exact = FloatAnswers.of(((batch, run(batch), batch.count) for batch in batches), run, GIVEN)
    if exact.not_checked:
        raise InputError(f"nothing to compare with {source}: {exact.not_checked}")
    return exact


def _numbers(path: Path, run: SessionRun, feed: Feed) -> list[Array | None]:
    """Return the outputs for a run; None for those that are no arrays of numbers."""
    try:
        outputs = run.session.run(None, feed)
    except Exception as error:  # onnxruntime's errors have no common base
        raise InputError(
            f"{path} does not run on what the float file runs on: {first_line(error)}; name the file that "
            "was made from it"
        ) from error
    found = [output if is_numbers(output) else None for output in outputs]
    if not any(output is not None for output in found):
        raise InputError(f"{path} has no output that is an array of numbers; there is nothing to compare")
    return found
