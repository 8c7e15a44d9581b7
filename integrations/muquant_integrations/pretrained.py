"""A model in few bits as a folder with config.json, as Hugging Face's libraries keep models.

MuLawModel("small.onnx", config).save_pretrained("folder")
model = MuLawModel.from_pretrained("folder")
outputs = model(input_ids=ids, attention_mask=mask)    # name -> array

An .onnx file is in the folder as model.onnx, where optimum's ORTModel classes look for it, and a compressed
module as model.mq. Nothing is downloaded, and nothing in a folder is run but the graph.
"""

import json
import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from torch import Tensor, nn

import muquant
from muquant import CompressedModel
from muquant.base.errors import InputError, first_line, naming
from muquant.base.files import atomic_path, beside, make_folder, write_json
from muquant.base.reading import read_json, require_file
from muquant_onnx import load_session
from muquant_onnx.files.external import tensors_of
from muquant_onnx.files.parse import parse
from muquant_onnx.files.wire import is_external

CONFIG = "config.json"
SECTION = "muquant"
"""Of the configuration: what muquant says in it."""
ONNX, ARTIFACT = "model.onnx", "model.mq"


class MuLawModel:
    """A model in few bits, and its configuration.

    Args:
        model: a compressed module, or the path of an ONNX file that muquant wrote.
        config: what else is known of the model, as JSON values; such as `to_dict()` of a configuration of
            transformers. Its entry "muquant" is replaced.
        policy: of `load_session`, for an ONNX file: how it serves weights; None for the file as it is.

    Attributes:
        model: as it was given.
        config: likewise.

    Raises:
        InputError: the file cannot be read, or the configuration is not JSON.
    """

    def __init__(
        self,
        model: CompressedModel | str | os.PathLike[str],
        config: Mapping[str, Any] | None = None,
        *,
        policy: str | None = None,
    ) -> None:
        self.model = model if isinstance(model, CompressedModel) else require_file(model)
        self.config = dict(config or {})
        self.policy = policy
        try:
            json.dumps(self.config, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"config: expected JSON values ({first_line(error)})") from error

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], module: nn.Module | None = None, *, policy: str | None = None
    ) -> Self:
        """Open a folder that `save_pretrained` wrote; also one of a cache, whose files are links.

        Args:
            folder: on this machine.
            module: takes the weights of a .mq file, in place, where muquant does not build it itself.
            policy: as of the constructor.

        Raises:
            InputError: there is no such folder, its configuration is not ours, a file of it is missing, of
                another size or outside the folder, or `module` is needed or does not fit.
        """
        path = Path(folder) / CONFIG
        config = read_json(path)
        with naming(str(path)):
            files = _files(config)
            found = {name: beside(path, name, "a file of it") for name in files}
            for name, nbytes in files.items():
                size = found[name].stat().st_size
                if size != nbytes:
                    raise InputError(
                        f"{name} has {size:,} bytes, expected {nbytes:,}; take a whole copy of the folder"
                    )
        if ARTIFACT in files:
            return cls(muquant.load(found[ARTIFACT], module), config)
        return cls(Path(folder) / ONNX, config, policy=policy)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model and its configuration into a folder, which is made where it is missing. The
        configuration comes last: a folder that has it is whole.

        Raises:
            InputError: the folder cannot be written, or data of the ONNX file is missing or outside its
                folder.
        """
        target = make_folder(folder)
        if isinstance(self.model, CompressedModel):
            self.model.save(target / ARTIFACT)
            names = [ARTIFACT]
        else:
            names = [ONNX, *_copy_data(self.model, target)]
            _copy(self.model, target / ONNX)
        files = {name: (target / name).stat().st_size for name in names}
        section = {"version": muquant.__version__, "files": files}
        write_json(target / CONFIG, {**self.config, SECTION: section})

    @cached_property
    def session(self) -> ort.InferenceSession:
        """The ONNX file under onnxruntime.

        Raises:
            InputError: it is a module, or the file cannot be opened.
        """
        if isinstance(self.model, CompressedModel):
            raise InputError("the model is a compressed module and has no session; call it, or export it")
        return load_session(self.model, policy=self.policy)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the model.

        Args:
            inputs: arrays or tensors, in order.
            named: likewise, by name.

        Returns:
            Of an ONNX file output name -> array; of a module what it returns.

        Raises:
            InputError: an ONNX file has other inputs, or cannot run on these.
        """
        if isinstance(self.model, CompressedModel):
            return self.model.module(*inputs, **named)
        return self._run(inputs, named)

    def _run(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        names = [each.name for each in self.session.get_inputs()]
        given = dict(zip(names, inputs, strict=False)) | dict(named)
        if len(inputs) + len(named) != len(given) or given.keys() != set(names):
            what = [*(["..."] * len(inputs)), *named]
            raise InputError(
                f"{self.model} takes the inputs {', '.join(names)}, found {', '.join(what) or 'none'}; give "
                "each once"
            )
        feed = {
            name: value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            for name, value in given.items()
        }
        outputs = [each.name for each in self.session.get_outputs()]
        try:
            results = self.session.run(outputs, feed)
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(f"onnxruntime cannot run {self.model}: {first_line(error)}") from error
        return dict(zip(outputs, results, strict=True))


def _files(config: Any) -> dict[str, int]:
    """Return name -> bytes of the files that a configuration lists, the model among them."""
    section = config.get(SECTION) if isinstance(config, dict) else None
    files = section.get("files") if isinstance(section, dict) else None
    if not isinstance(files, dict) or len({ONNX, ARTIFACT} & files.keys()) != 1:
        raise InputError(
            f'expected an entry "{SECTION}" whose "files" hold {ONNX} or {ARTIFACT}, as save_pretrained '
            "writes it; name a folder that it wrote"
        )
    for name, nbytes in files.items():
        if type(nbytes) is not int or nbytes < 0:
            raise InputError(f"the size of {name} is {nbytes!r:.60}; expected a number of bytes")
    return files


def _copy_data(model: Path, folder: Path) -> list[str]:
    """Copy the external data of an ONNX file, and return the names of its files.

    Raises:
        InputError: one of them is missing, outside the model's folder, or has a name that is taken.
    """
    locations = {
        entry.value
        for tensor in tensors_of(parse(model))
        if is_external(tensor)
        for entry in tensor.external_data
        if entry.key == "location" and entry.value != model.name  # what the file holds itself
    }
    for name in locations:
        with naming(str(model)):
            source = beside(model, name, "external data")
        if name in (CONFIG, ONNX, ARTIFACT) or Path(name).name != name:
            raise InputError(
                f"{model} has external data at {name!r}; expected another name, of one beside it"
            )
        _copy(source, folder / name)
    return sorted(locations)


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
