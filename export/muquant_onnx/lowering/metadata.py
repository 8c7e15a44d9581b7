"""The metadata block of a file: what a reader of the file alone should know, see FORMAT.md."""

import json
from collections.abc import Mapping, Sequence

import onnx_ir as ir

import muquant
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.lower import Policy, Served

METADATA = "muquant"
FORMAT = 1
"""Version of the file format, see FORMAT.md."""


def add_metadata(
    model: ir.Model, weights: Mapping[str, PackedWeight], policy: Policy, served: Sequence[Served]
) -> None:
    """Describe `weights`, by name, in the metadata of `model`, in place."""
    used = {use.weight for use in served}
    model.metadata_props[METADATA] = json.dumps(
        {
            "format": FORMAT,
            "producer": f"muquant {muquant.__version__}",
            "policy": policy,
            "weights": {
                name: {
                    "shape": list(weight.shape),
                    **weight.spec.to_dict(),
                    "grid": weight.spec.grid_name,
                    "channel_axis": weight.channel_axis,
                    "served": sorted({use.form for use in served if use.weight == name}),
                }
                for name, weight in weights.items()
                if name in used
            },
            "unused": sorted(set(weights) - used),
        }
    )
