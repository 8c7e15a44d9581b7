"""Files that are wrong on purpose: what `fuzz.py` tries for hours, and `tests/fuzz` for seconds.

case.py          a case: a folder of files, by name
odd.py           values that a reader may not expect
documents.py     JSON
raw.py           bytes of any kind
tensor_files.py  safetensors with a manifest: .mq, run folders, kept attacks, finished weights
arrays.py        .npy and .npz
models.py        ONNX, any and ours
pictures.py      IDX files and images
seeds.py         good files, small, that mutations begin with
seed_models.py   likewise: ONNX
readers.py       every reader with its seeds, its mutations and what must hold
agreement.py     what a file answers, plainly and by policies
trial.py         one case: made, read, judged
pool.py          a process that tries case after case, and the one that watches it

Mutations take a `random.Random`: one of a seed, or one whose draws hypothesis chooses.
"""
