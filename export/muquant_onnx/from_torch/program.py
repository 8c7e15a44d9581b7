"""Compress a program of `torch.export`, a .pt2 file: operators without layers, so made a graph first."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from muquant.base.errors import InputError, first_line, naming
from muquant.base.files import scratch_folder, temporary_folder
from muquant.compression.budget import Plan
from muquant.format.spec import MuLawSpec
from muquant_onnx.from_onnx import CompressReport, compress_onnx, plan_onnx
from muquant_onnx.from_torch.tracing import trace_program


def compress_program(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    spec: MuLawSpec | None = None,
    **options: Any,
) -> CompressReport:
    """Write the program in `source` as an ONNX file with its weights in few bits; whole or not at all.

    Reading a .pt2 file can run code that is in it: trust what you name.

    Args:
        source: what `torch.export.save` wrote.
        destination: of the ONNX file.
        spec: the format; 3 bits, mu searched, a scale for each channel by default.
        options: of `compress_onnx`. Sizes in its report are those of the program as a float ONNX file.

    Raises:
        InputError: the file is missing or no such program, it has no ONNX form, or `compress_onnx`
            refuses it.
    """
    with program_as_onnx(source, destination) as graph:
        return compress_onnx(graph, destination, spec, **options)


def plan_program(source: str | os.PathLike[str], spec: MuLawSpec | None = None, **options: Any) -> Plan:
    """Choose widths for the weights of the program in `source`, for `compress_program` to follow.

    Reading a .pt2 file can run code that is in it: trust what you name.

    Args:
        source: what `torch.export.save` wrote.
        spec: the format but for its width.
        options: of `plan_onnx`.

    Raises:
        InputError: the file is missing or no such program, it has no ONNX form, or `plan_onnx` refuses it.
    """
    with program_as_onnx(source) as graph:
        return plan_onnx(graph, spec, **options)


@contextmanager
def program_as_onnx(
    source: str | os.PathLike[str], destination: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """Yield the program in `source` as a temporary ONNX file; what is said of that is said of `source`.

    Reading a .pt2 file can run code that is in it: trust what you name.

    Args:
        source: what `torch.export.save` wrote.
        destination: the file lies beside it; by default among the system's temporary files.

    Raises:
        InputError: the file is missing or no such program, it has no ONNX form, or there is no such folder.
    """
    program = _load(source)
    temporary = temporary_folder() if destination is None else scratch_folder(destination)
    with temporary as folder:
        with naming(os.fspath(source)):
            model = trace_program(program)
        graph = Path(folder, "graph.onnx")
        ir.save(model, graph, external_data="graph.data")  # it may be larger than one file can be
        try:
            yield graph
        except InputError as error:
            raise InputError(str(error).replace(str(graph), os.fspath(source))) from error


def _load(path: str | os.PathLike[str]) -> torch.export.ExportedProgram:
    if not Path(path).is_file():
        raise InputError(f"cannot read {path}: no such file; name what torch.export.save wrote")
    log, reasons = logging.getLogger("torch.export"), _Reasons()
    log.addFilter(reasons)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # of a zip file, of a pickle, of a schema
        raise InputError(
            f"{path} is not a whole torch.export program that can be read here "
            f"({_sentence(reasons.first or error)}); write one with torch.export.save, of a module that "
            "takes and returns tensors, tuples and dicts"
        ) from error
    finally:
        log.removeFilter(reasons)


def _sentence(error: BaseException) -> str:
    return first_line(error).partition(". ")[0].rstrip(".")  # torch goes on to tell of its archive reader


class _Reasons(logging.Filter):
    """Keeps from the log what torch says while it reads, and the first error in it.

    Torch logs why it cannot read a file, then tries to read it as one of an older version, and raises why it
    cannot do that.
    """

    first: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing pass."""
        if self.first is None and record.exc_info:
            self.first = record.exc_info[1]
        return False
