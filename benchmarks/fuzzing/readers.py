"""Every reader: the files it begins with, how they are changed, and what must hold of the changed ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from random import Random

from fuzzing import arrays, documents, models, pictures, raw, reading, seed_models, seeds, tensor_files
from fuzzing.case import Case, Mutation, change


@dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
        seeds: good files, of which one is changed.
        changes: pattern of a file's path -> how it is changed; others stay as they are.
        read: reads the files in a folder. What it raises is `InputError`, or a finding.
        share: of 1,000 cases; small where a case takes long.
    """

    seeds: Callable[[], list[Case]]
    changes: Mapping[str, Mutation]
    read: Callable[[Path], None]
    share: int

    def make(self, random: Random) -> Case:
        """Return a case: a good one with a file changed."""
        case = random.choice(self.seeds())
        places = [
            (name, mutation)
            for name in case
            for pattern, mutation in self.changes.items()
            if fnmatch(name, pattern)
        ]
        name, mutation = random.choice(places)
        return change(case, name, mutation, random)


def _one(seed: Callable[[], Case]) -> Callable[[], list[Case]]:
    return lambda: [seed()]


_TENSORS: dict[str, Mutation] = {"*.safetensors": tensor_files.tensor_file}
_MODEL: dict[str, Mutation] = {"model.onnx": models.model}

READERS: dict[str, Reader] = {
    "artifact": Reader(seeds.artifacts, {"*.mq": tensor_files.tensor_file}, reading.artifact, 190),
    "run": Reader(_one(seeds.run), {"model.safetensors": tensor_files.tensor_file}, reading.run, 80),
    "resume": Reader(
        _one(seeds.unfinished_run),
        {"*.json": documents.document, "*.jsonl": documents.lines, **_TENSORS},
        reading.resume,
        15,
    ),
    "rounds": Reader(_one(seeds.rounds), {"*.jsonl": documents.lines}, reading.rounds, 80),
    "plan": Reader(_one(seed_models.plan), {"*.json": documents.document}, reading.plan, 190),
    "finished": Reader(_one(seeds.finished), _TENSORS, reading.finished, 100),
    "attacks": Reader(_one(seeds.kept_attack), _TENSORS, reading.attacks, 70),
    "state": Reader(_one(seeds.state), {"*.safetensors": tensor_files.plain_tensor_file}, reading.state, 80),
    "samples": Reader(seeds.samples, {"*.npy": arrays.array, "*.npz": arrays.archive}, reading.samples, 40),
    "mnist": Reader(_one(seeds.idx_files), {"*": pictures.idx}, reading.mnist, 40),
    "cifar10": Reader(_one(seeds.cifar_files), {"*": raw.changed}, reading.cifar10, 5),
    "images": Reader(_one(seeds.image_folder), {"*": pictures.image}, reading.images, 12),
    "arrays": Reader(_one(seeds.arrays), {"*": arrays.archive}, reading.arrays, 10),
    "suite": Reader(seeds.suites, {"*.json": documents.document, "*.toml": raw.changed}, reading.suite, 10),
    "pretrained": Reader(
        _one(seeds.pretrained),
        {"*.json": documents.document, "*.mq": tensor_files.tensor_file},
        reading.pretrained,
        10,
    ),
    "decoded": Reader(seed_models.served, {**_MODEL, "model.data": raw.changed}, reading.decoded, 25),
    "served": Reader(seed_models.served, {**_MODEL, "model.data": raw.changed}, reading.served, 12),
    "cached": Reader(
        _one(seed_models.cached),
        {"*.json": documents.document, "cache/*.onnx": raw.changed, "*.data": raw.changed},
        reading.cached,
        15,
    ),
    "compressed": Reader(seed_models.graphs, {**_MODEL, "model.data": raw.changed}, reading.compressed, 5),
    "verified": Reader(seed_models.written, _MODEL, reading.verified, 1),
    "inspect": Reader(
        lambda: [*seeds.artifacts(), *seed_models.served(), seeds.run()],
        {"*.mq": tensor_files.tensor_file, "model.safetensors": tensor_files.tensor_file, **_MODEL},
        reading.inspect,
        10,
    ),
}
"""By what they read."""
