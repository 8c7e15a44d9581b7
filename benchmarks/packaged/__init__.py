"""Networks that others trained, as they ship in packages, with inputs for them.

packages.py    the packages, installed into a folder of their own
pictures.py    photographs, lines of text and pages
sounds.py      speech, and what networks hear of it
language.py    a language model from a GGUF file, and tokens for it
modules.py     networks that ship as weights of a PyTorch module: factories for `muquant compress`
tasks.py       how alike two answers are, by what a network is for
networks.py    all networks: files, inputs and tasks
variants.py    files that onnxruntime's own tools write of others
commands.py    `muquant compress` and `export`, and what they say
serving.py     loads and answers, timed
"""
