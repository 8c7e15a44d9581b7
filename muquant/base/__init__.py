"""What knows nothing of networks.

errors.py        `InputError`: what you gave cannot be used, and here is what to do
extras.py        which extra has a package that is missing
files.py         files that are written whole or not at all, and where others that they name may lie
leftovers.py     temporary files, and how those of processes that were killed are swept
reading.py       files that are read: regular ones, and JSON without surprises
arrays.py        .npy and .npz files
tensor_files.py  safetensors files with a manifest and a checksum
values.py        dataclasses read from JSON, and checked by types and ranges
registry.py      the look-up that every registry shares
seeds.py         randomness as a function of the seed and a place in the run
devices.py       devices by name
processes.py     the processes that share a piece of work
progress.py      how a caller is told how far a long task has come
provenance.py    command, versions, machine
processor.py     what the processor is
picture.py       formats and colours of pictures
text.py          names from files, sizes, and tables in Markdown, for people

Import from the modules: this file imports nothing, so that who needs one of them loads no other.
"""
