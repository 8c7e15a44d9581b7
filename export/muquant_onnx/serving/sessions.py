"""Sessions of stock onnxruntime: settings and policies by name, and the operators that really run."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import onnx
import onnxruntime as ort

from muquant.base.errors import InputError, first_line
from muquant.base.files import temporary_folder
from muquant.base.registry import look_up
from muquant_onnx.lowering.lower import check_policy
from muquant_onnx.serving.cache import cache_key, cached_session
from muquant_onnx.serving.serve import packed_file, served_file


@dataclass(frozen=True)
class RuntimeSetting:
    """How onnxruntime is asked to run a file.

    Attributes:
        description: what it is for, in a line.
        optimize: whether graphs are optimised.
        entries: session configuration entries.
        rounds_activations: whether integer kernels round activations to int8, so that parity is not exact.
    """

    description: str
    optimize: bool = True
    entries: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rounds_activations: bool = False

    @property
    def accuracy_level(self) -> int:
        """What kernels of integer weights are asked for: 4 rounds activations, 1 computes in float32."""
        return 4 if self.rounds_activations else 1


RUNTIME_SETTINGS: dict[str, RuntimeSetting] = {
    "default": RuntimeSetting(
        "as onnxruntime comes: fast integer kernels that round activations too", rounds_activations=True
    ),
    "accuracy-1": RuntimeSetting(
        "integer kernels that compute in float32; of 8 bits many times slower than a float product",
        entries={"session.qdq_matmulnbits_accuracy_level": "1"},
    ),
    "unoptimized": RuntimeSetting(
        "no graph optimisation: every node as the file states it",
        optimize=False,
        entries={"session.intra_op.allow_spinning": "0"},  # what waits leaves the processor to others
    ),
}


POLICIES: dict[str, str] = {
    "float": "all weights decoded to floats: exact, as fast and as large as the float model",
    "int8": "int8 levels in memory, for kernels of matrix products and embeddings; the rest as float",
    "int4": "4-bit integers in memory for products with weights on the int4 grid; the rest as int8",
    "auto": "int4 or int8 where it is expected to be faster, else float",
    "packed": "nothing decoded but while it is used: the smallest in memory, and slow",
}
"""How `load_session` can serve a compressed file, whatever the policy that it was exported with."""


def load_session(
    path: str | os.PathLike[str],
    setting: str = "default",
    *,
    policy: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    threads: int = 0,
    optimized_path: str | os.PathLike[str] | None = None,
    profile: str | os.PathLike[str] | None = None,
) -> ort.InferenceSession:
    """Open an ONNX file on the CPU.

    Args:
        path: of the file; with a policy, one that muquant wrote.
        setting: a name of `RUNTIME_SETTINGS`.
        policy: a name of `POLICIES`: codes are decoded here, several times as fast as onnxruntime folds the
            decoder. None leaves everything to onnxruntime: the file as it is.
        cache: a folder for optimised models. A file that was opened before, with the same setting, policy,
            version of onnxruntime and processor, is not decoded and optimised again.
        threads: used within an operator; 0 leaves the number to onnxruntime.
        optimized_path: where to write the optimised model, if anywhere; weights go beside it, as PATH.data.
        profile: what begins the name of a file to which onnxruntime writes what runs, if to any, until the
            session's `end_profiling`.

    Raises:
        InputError: the setting or the policy is unknown, the policy does not go with a cache, the cache
            folder is not safe, the parts of a weight do not fit, or onnxruntime cannot load the file.

    Warns:
        PlainWarning: the graph does not make of a weight what the file's metadata says, or does so in a way
            that this version does not write. Such a weight is left to onnxruntime: answers are those of the
            file as it is.
    """
    chosen = look_up("setting", setting, RUNTIME_SETTINGS)
    if policy is not None:
        look_up("policy", policy, POLICIES)
    if not Path(path).is_file():
        raise InputError(f"cannot read {path}: no such file; name an ONNX file")

    def open_new(optimized: str | os.PathLike[str] | None) -> ort.InferenceSession:
        options = _options(chosen, threads, optimized, profile)
        if policy is None:
            return _open_file(Path(path), options)
        disabled = []
        if policy == "packed":
            handed, disabled = packed_file(path), ["ConstantFolding"]
            options.enable_cpu_mem_arena = False
        else:
            handed = served_file(path, check_policy(policy), chosen.accuracy_level)
        options.add_external_initializers(list(handed.values), list(handed.values.values()))
        return _open(path, handed.graph, options, disabled)

    def open_optimized(model: Path) -> ort.InferenceSession:
        return _open(model, str(model), _options(RUNTIME_SETTINGS["unoptimized"], threads, None, profile))

    if cache is None:
        return open_new(optimized_path)
    if policy == "packed":
        raise InputError("the policy packed folds nothing, so there is nothing to cache; leave the cache out")
    return cached_session(cache, cache_key(path, setting, policy), open_new, open_optimized)


def silent_run() -> ort.RunOptions:
    """Return options of a run that may fail without a word of onnxruntime's on the console."""
    options = ort.RunOptions()
    options.log_severity_level = 4
    return options


def _options(
    setting: RuntimeSetting,
    threads: int,
    optimized: str | os.PathLike[str] | None,
    profile: str | os.PathLike[str] | None,
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not setting.optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, os.fspath(profile)
    entries = dict(setting.entries)
    if optimized is not None:
        options.optimized_model_filepath = os.fspath(optimized)
        entries |= {
            "session.optimized_model_external_initializers_file_name": f"{Path(optimized).name}.data",
            "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _open_file(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return _open(path, str(path), options)
    except InputError:
        if path.is_symlink():
            with suppress(InputError):  # the first error names the place where users look
                return _open(path, str(path.resolve()), options)  # its external data may be beside that
        raise


def _open(
    path: str | os.PathLike[str],
    model: str | bytes,
    options: ort.SessionOptions,
    disabled: Sequence[str] = (),
) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
        )
    except Exception as error:  # onnxruntime's errors have no common base
        raise InputError(f"onnxruntime cannot load {path}: {first_line(error)}") from error


def running_operators(
    path: str | os.PathLike[str], setting: str = "default", policy: str | None = None
) -> dict[str, int]:
    """Return the operator types that onnxruntime runs after its optimisations, with their number."""
    with temporary_folder() as folder:
        optimized = Path(folder, "optimized.onnx")
        load_session(path, setting, policy=policy, optimized_path=optimized)
        counts = Counter(node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node)
    return dict(sorted(counts.items()))
