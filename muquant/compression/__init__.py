"""One model: its layers picked, their weights quantized, the result in memory and as a file.

pipeline.py       `compress`
planning.py       `plan_widths`
options.py        what `compress`, `plan_widths` and their ONNX twins can be asked for
layers.py         which modules have weights; a weight and the layers that share it
computed.py       weights that parametrizations or hooks compute, made plain ones
selection.py      which of them a user picked
left.py           what stays float, by bytes, and why
weight_bytes.py   bytes of all weights, before and after
artifact.py       `CompressedModel`, and the .mq file
qat.py            `prepare_qat`, and the way back from it
quantizer.py      weights in few bits, as they were asked for, and put in place
auto.py           the layers "auto": a format for each weight by the norm of its error
batch_norm.py     BatchNorm statistics that follow what compression did
answers/          whether the compressed model answers like the float one
calibration/      what the inputs of layers are like, from samples
sensitivity/      norms of a weight's error in its layer
budget/           a width for each weight, within limits
tuning/           all weights trained together towards the float model, for a few minutes
amplification.py  how errors grow from layer to layer
pictures.py       plots of weights and of errors
"""
