"""Whether a compressed model still answers like the float one, seen on the same inputs.

classes.py  which outputs look like logits, and what each of them says
report.py   `AnswersCheck`: the figures, what they must reach, and what to say where they do not
compare.py  the float model's outputs, kept until the compressed one has answered too
modules.py  what a module is run on
"""

from muquant.compression.answers.report import AnswersCheck, AnswersWarning, OutputCheck

__all__ = ["AnswersCheck", "AnswersWarning", "OutputCheck"]
