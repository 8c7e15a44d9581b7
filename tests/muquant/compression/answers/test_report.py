"""What is said of a check, to people and to machines."""

import json
import math

from muquant import AnswersCheck, OutputCheck


def checked(*outputs: OutputCheck, inputs: str = "held-out samples") -> AnswersCheck:
    return AnswersCheck(inputs, 16, outputs)


LOGITS = OutputCheck("logits", (16, 10), 12.34, 0.9375)
STATE = OutputCheck("state", (16, 4), 6.1, None)
WHOLE = OutputCheck("ids", (16,), None, 1.0)


def test_thresholds_are_of_the_worst() -> None:
    assert checked(LOGITS, WHOLE).passes()
    assert checked(LOGITS).passes(12.34, 0.9375)
    assert not checked(LOGITS).passes(12.35, 0)
    assert not checked(LOGITS).passes(0, 0.94)
    assert not checked(LOGITS, STATE).passes()
    assert (checked(LOGITS, STATE, WHOLE).sqnr, checked(LOGITS, STATE, WHOLE).agreement) == (6.1, 0.9375)
    assert not AnswersCheck(not_checked="no example").passes(-math.inf, 0)


def test_words() -> None:
    assert checked(LOGITS).words == (
        "Answers beside the float model's, on 16 held-out samples: 12.3 dB, 93.7 % of the answers equal"
    )
    made = checked(LOGITS, STATE, inputs="synthetic inputs").words
    assert "16 synthetic inputs: 6.1 dB, 93.7 % of the answers equal, the worst of all outputs" in made
    assert made.endswith("random numbers are not your data: give samples for a true figure")
    lossless = OutputCheck("y", (1,), math.inf, 0.99999)
    assert checked(lossless, inputs="the example").words.endswith(
        "on the example: nothing lost, 99.9 % of the answers equal"
    )


def test_the_warning_names_the_outputs_and_the_ways_out() -> None:
    assert checked(LOGITS).warning() == ""
    text = checked(LOGITS, STATE).warning(("--samples", "--bits", "--drop"))
    assert text == (
        "the compressed model no longer answers like yours (state: 6.1 dB, wanted 10). Three ways out: more "
        "samples (--samples), more bits (--bits), or a budget by changed answers (--drop)"
    )
    many = checked(*[OutputCheck(f"o{place}", (1,), 1.0, 0.5) for place in range(5)]).below()
    assert many.count("1.0 dB, wanted 10, 50 % of its answers equal, wanted 90") == 3
    assert many.endswith("; and 2 more outputs")


def test_the_document_is_json() -> None:
    infinite = [OutputCheck("y", (1,), ratio, None) for ratio in (math.inf, -math.inf)]
    document = json.loads(json.dumps(checked(LOGITS, WHOLE, *infinite).to_dict(), allow_nan=False))
    assert [each["sqnr"] for each in document["outputs"]] == [12.34, None, None, None]
    assert [each["lossless"] for each in document["outputs"]] == [False, None, True, False]
    assert (document["count"], document["inputs"], document["good"]) == (16, "held-out samples", False)
    assert AnswersCheck(not_checked="no example").to_dict()["good"] is None
