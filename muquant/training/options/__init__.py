"""What a run is asked for: values that know their types, ranges and names, and build nothing.

config.py       `TrainingConfig`: everything that decides what a run computes; and which methods there are
adversarial.py  `AdversarialOptions`, of adversarial training; `feedback/config.py` has those of feedback
qat.py          `QatOptions`, of quantization-aware training

Import from the modules: this file imports nothing.
"""
