"""What readers do with a folder of files, and what must hold where they do not refuse it."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime as ort
import torch
from click.testing import CliRunner

import muquant
from fuzzing import seed_models, seeds
from fuzzing.agreement import DisagreementError, answers, compare, has_outliers, plain_answer
from muquant.base.errors import InputError
from muquant.compression.artifact import read_artifact
from muquant.data import load_dataset
from muquant.robustness import settings_for
from muquant.robustness.own import read_suite
from muquant.robustness.runner import predictions
from muquant.training import load_run, read_run, train
from muquant.training.feedback.journal import Journal
from muquant_cli import main
from muquant_cli.options.calibration import read_calibration
from muquant_cli.sources.state import load_state
from muquant_integrations import MuLawModel
from muquant_onnx import compress_onnx, decode_file, load_session, verify_onnx
from muquant_onnx.serving.serve import count_kernels
from muquant_onnx.serving.sessions import POLICIES
from muquant_onnx.verification.runners.child import measure
from muquant_onnx.verification.runners.runtime import PythonRuntime

MODEL = "model.onnx"
_EXACT, _ROUGH = 1e-3, 0.2
"""Of the largest output: what another order of sums makes, and what 8 bits make."""


class BrokenError(Exception):
    """Something was read that should not be believed."""


class _Several:
    """Several readers of one file: each is tried, whatever the others say; refused is what all refuse."""

    def __init__(self) -> None:
        self.tried, self.refused = 0, list[InputError]()

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Go on after a refusal inside."""
        self.tried += 1
        try:
            yield
        except InputError as error:
            self.refused.append(error)

    def done(self) -> None:
        """Refuse what all have refused."""
        if len(self.refused) == self.tried:
            raise self.refused[0]


def artifact(folder: Path) -> None:
    """Read a .mq file, then into a module where it needs one."""
    path = folder / "model.mq"
    read = read_artifact(path)
    compressed = muquant.load(path, None if read.architecture is not None else seeds.own_module())
    for name, tensor in compressed.tensors.items():
        if not torch.isfinite(tensor.dequantize()).all():
            raise BrokenError(f"{name} is not finite")


def run(folder: Path) -> None:
    """Read the manifest of a finished run, then its weights."""
    read_run(folder)
    load_run(folder)


def resume(folder: Path) -> None:
    """Go on with a run that was interrupted."""
    result = train(seeds.CONFIG, folder, resume=True)
    if not all(bool(torch.isfinite(each).all()) for each in result.model.state_dict().values()):
        raise BrokenError("the model is not finite")


def rounds(folder: Path) -> None:
    """Read the log of feedback learning."""
    Journal(folder, ("a", "b"), 1.0).records()


def plan(folder: Path) -> None:
    """Read a plan, and what follows from it."""
    found = muquant.read_plan(folder / "plan.json")
    if found.nbytes < 0 or not found.noise >= 0:
        raise BrokenError(f"{found.nbytes} bytes, noise {found.noise}")
    found.to_dict()


def finished(folder: Path) -> None:
    """Take a weight from where an interrupted command has kept it."""
    weight = seeds.quantized(folder).tensor.dequantize()
    if weight.shape != (4, 8) or not torch.isfinite(weight).all():
        raise BrokenError(f"a weight {tuple(weight.shape)}, or one that is not finite")


def attacks(folder: Path) -> None:
    """Take an attack's result from where it is kept; it has to be a true one."""
    runner = seeds.attacked(folder / "attacks")
    found, images = runner.run("pgd", seeds.attack()), runner.sample.images
    apart = (found.adversarial - images).abs().flatten(1)
    fooled = found.success
    true = (
        bool((predictions(runner.target, found.adversarial)[fooled] != runner.sample.labels[fooled]).all())
        and bool((apart[fooled] <= 0.1 + 1e-6).all())
        and bool(((found.adversarial >= 0) & (found.adversarial <= 1)).all())
        and bool((found.attacked == (predictions(runner.target, images) == runner.sample.labels)).all())
        and not bool((fooled & ~found.attacked).any())
        and torch.allclose(found.linf[fooled], apart[fooled].amax(1), atol=1e-5)
        and torch.allclose(found.l2[fooled], apart[fooled].norm(dim=1), atol=1e-4)
    )
    if not true:
        raise BrokenError("a kept attack that is none")


def state(folder: Path) -> None:
    """Fill a module with the weights in a file."""
    load_state(seeds.own_module(), folder / "state.safetensors")


def samples(folder: Path) -> None:
    """Read calibration data: a file or a folder."""
    (name,) = {path.name for path in folder.iterdir()} or {"x.npy"}
    read_calibration(str(folder / name), 8)


def mnist(folder: Path) -> None:
    """Read IDX files."""
    several = _Several()
    for split in ("train", "test"):
        with several.trying():
            load_dataset("mnist", split, root=folder)
    several.done()


def cifar10(folder: Path) -> None:
    """Read what is not the published CIFAR-10."""
    load_dataset("cifar10", "train", root=folder)
    raise BrokenError("files that nobody published were read")


def images(folder: Path) -> None:
    """Read a folder of images."""
    several = _Several()
    for split in ("train", "test"):
        with several.trying():
            load_dataset(f"folder:{folder}", split)
    several.done()


def arrays(folder: Path) -> None:
    """Read images, labels and places from arrays."""
    found = load_dataset(f"npz:{folder / 'images.npz'}", "test")
    pixels = found.inputs()
    if not bool(((pixels >= 0) & (pixels <= 1)).all()) or int(found.labels.max()) >= len(found.classes):
        raise BrokenError("pixels outside of [0, 1], or a label that is no class")


def suite(folder: Path) -> None:
    """Read attacks of one's own."""
    (path,) = [*folder.iterdir()] or [folder / "suite.json"]
    read_suite(str(path))(settings_for("digits"), None)


def pretrained(folder: Path) -> None:
    """Read a folder with a configuration."""
    found = MuLawModel.from_pretrained(folder, seeds.own_module())
    if not isinstance(found.model, muquant.CompressedModel):
        raise BrokenError("a model that is not the folder's")


def decoded(folder: Path) -> None:
    """Decode a file with numpy, and say what would run."""
    several = _Several()
    with several.trying():
        for name, weight in decode_file(folder / MODEL).items():
            if not np.isfinite(weight).all():
                raise BrokenError(f"{name} is not finite")
    for policy in (None, "int8"):
        with several.trying():
            count_kernels(folder / MODEL, policy)
    several.done()


def served(folder: Path) -> None:
    """Open a file of ours by every policy: what onnxruntime runs alone it answers alike, or is refused."""
    path, several = folder / MODEL, _Several()
    plain = plain_answer(path)
    for policy in (None, *POLICIES):
        session: ort.InferenceSession | None = None
        with several.trying():
            session = load_session(path, "accuracy-1", policy=policy, threads=1)
        if session is None or plain is None:
            continue
        try:
            found = answers(session, plain.feed)
        except Exception as error:  # onnxruntime's errors have no common base
            raise DisagreementError(f"policy {policy}: does not run: {str(error)[:200]}") from error
        compare(plain.outputs, found, _EXACT, f"policy {policy}")
    several.done()


def cached(folder: Path) -> None:
    """Open a file by a cache: whatever has become of that, the answer is that of the file."""
    path = folder / MODEL
    plain = plain_answer(path)
    session = load_session(path, "accuracy-1", policy="float", cache=folder / "cache", threads=1)
    if plain is not None:
        compare(plain.outputs, answers(session, plain.feed), _EXACT, "from the cache")


def compressed(folder: Path) -> None:
    """Compress a model of others at 8 bits: the new file answers much as the old one does."""
    path, out = folder / MODEL, folder / "out.onnx"
    spec = muquant.MuLawSpec(bits=8, **seed_models.QUICK)
    compress_onnx(path, out, spec, rounding="nearest", observer="absmax", synthetic=False, check=False)
    plain = plain_answer(path)
    if plain is None or has_outliers(path):
        return
    found = plain_answer(out)
    if found is None:
        raise DisagreementError("what was written does not run")
    compare(plain.outputs, found.outputs, _ROUGH, "compressed")


def verified(folder: Path) -> None:
    """Verify a file against the model that it was made from."""
    (folder / "source.onnx").write_bytes(seed_models.graph())
    with mock.patch.object(
        PythonRuntime, "measure", lambda own, asked: measure(own, replace(asked, seconds=0))
    ):
        verify_onnx(folder / "source.onnx", folder / MODEL)


def inspect(folder: Path) -> None:
    """Show a file on the command line: a table or a line, without anything that moves a terminal."""
    found = next((path for path in sorted(folder.iterdir()) if path.suffix in (".mq", ".onnx")), folder)
    for more in ((), ("--json",)):
        result = CliRunner().invoke(main, ["inspect", str(found), *more], catch_exceptions=False)
        if result.exit_code not in (0, 2):
            raise BrokenError(f"exit status {result.exit_code}")
        last = (result.stderr.splitlines() or [""])[-1]
        if result.exit_code == 2 and not last.startswith("muquant: error: "):
            raise BrokenError(f"no line that says why: {last[:200]!r}")
        bad = [each for each in result.stdout + result.stderr if _moves(each)]
        if bad:
            raise BrokenError(f"characters that a terminal obeys: {bad[:5]!r}")


def _moves(character: str) -> bool:
    return (
        character != "\n" and unicodedata.category(character) in ("Cc", "Cs")
    ) or character in "\u202e\u2028"
