"""A pass of Olive that compresses ONNX models: ONNX in, ONNX out.

import olive
olive.run("workflow.json", package_config=package_config())    # {"type": "MuLawCompression", "bits": 3, ...}

python -m muquant_integrations.olive > packages.json
olive run --config workflow.json --package-config packages.json
"""

import json
from pathlib import Path
from typing import Any

from muquant import MuLawSpec
from muquant.base.errors import InputError
from muquant.format.spec import Grid, Levels
from muquant_integrations.packages import needing
from muquant_onnx import compress_onnx
from muquant_onnx.lowering.lower import Policy

with needing("olive-ai", "MuLawCompression"):
    from olive.common.config_utils import validate_config
    from olive.data.config import DataConfig
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.model import ONNXModelHandler
    from olive.model.utils import resolve_onnx_path
    from olive.package_config import OlivePackageConfig
    from olive.passes import Pass
    from olive.passes.pass_config import BasePassConfig, PassConfigParam


class MuLawCompression(Pass):  # type: ignore[misc]  # its package has no place among those of the type checker
    """Compress the weights of an ONNX model to few bits, by mu-law levels that stock onnxruntime decodes."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            name: PassConfigParam(type_=kind, default_value=default, description=description)
            for name, kind, default, description in _PARAMETERS
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        if not isinstance(model, ONNXModelHandler):
            raise InputError(
                f"MuLawCompression takes ONNX models, found {type(model).__name__}; convert it before"
            )
        path = resolve_onnx_path(output_model_path, Path(model.model_path).name)
        calibration = None
        if config.data_config is not None:
            data = validate_config(config.data_config, DataConfig).to_data_container()
            calibration = data.create_calibration_dataloader(
                model_path=model.model_path, io_config=model.io_config
            )
        report = compress_onnx(
            model.model_path,
            path,
            MuLawSpec(config.bits, granularity=config.granularity, levels=config.levels, grid=config.grid),
            flat=config.flat,
            layers=config.layers,
            overrides=config.overrides,
            rounding=config.rounding,
            calibration=calibration,
            target=config.target,
            policy=config.policy,
        )
        if report.data_path is None:
            return ONNXModelHandler(model_path=path)
        return ONNXModelHandler(model_path=str(Path(path).parent), onnx_file_name=Path(path).name)


_PARAMETERS: tuple[tuple[str, Any, Any, str], ...] = (
    ("bits", int, 3, "Bits of a code, 2 to 8, on average over the weights."),
    ("flat", bool, False, "Whether all weights have this width, whatever they matter."),
    ("granularity", str, "channel", 'Which weights share a scale: "tensor", "channel" or "group:G".'),
    ("levels", Levels, "mid-rise", 'Levels without, or with ("mid-tread"), an exact zero.'),
    ("grid", Grid, "auto", 'Integers on which levels lie; "int4": those of a 4-bit kernel.'),
    ("layers", str, "all", 'Which weights: "all", "last:K" or a regular expression.'),
    ("overrides", dict[str, int] | None, None, "Layers, likewise -> another width."),
    ("rounding", str | None, None, "How codes are chosen, see muquant.compress."),
    ("policy", Policy | None, None, "How the file serves weights; by default what the target likes best."),
    ("target", str, "onnxruntime", "What the file is for, such as onnxruntime, web or openvino."),
    ("data_config", DataConfig | dict[str, Any] | None, None, "Samples, 4 or more; labels are left out."),
)
"""Name, type, default and description of each parameter."""


def package_config() -> dict[str, Any]:
    """Return Olive's own configuration of packages with this pass in it: `package_config` of `olive.run`."""
    document: dict[str, Any] = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text())
    document["passes"][MuLawCompression.__name__] = {
        "module_path": f"muquant_integrations.olive.{MuLawCompression.__name__}",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": ["*"],
        "dataset": "dataset_optional",
    }
    return document


if __name__ == "__main__":
    print(json.dumps(package_config(), indent=2))  # noqa: T201  # its one output
