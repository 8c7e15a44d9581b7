import json
import math

import pytest

from muquant.base.errors import InputError
from muquant.models import Architecture, Normalize

GOOD = {
    "name": "cnn4-small",
    "input_shape": [1, 8, 8],
    "classes": 10,
    "mean": [0.3],
    "std": [0.4],
}


def test_it_survives_json_unchanged() -> None:
    architecture = Architecture("wrn-10-1", (3, 32, 32), 7, (0.1, 0.2, 1 / 3), (0.5, 1.0, 2 / 3))
    document = json.loads(json.dumps(architecture.to_dict()))
    assert Architecture.from_dict(document) == architecture


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"name": 4}, "model name"),
        ({"name": "a\nb"}, "model name"),
        ({"name": "x" * 65}, "model name"),
        ({"input_shape": [1, 8]}, "input shape"),
        ({"input_shape": [1, 8, 8.0]}, "input shape"),
        ({"input_shape": [True, 8, 8]}, "input shape"),
        ({"input_shape": [1, 3, 8]}, "input shape"),
        ({"input_shape": [1, 8, 1025]}, "input shape"),
        ({"input_shape": "188"}, "input shape"),
        ({"classes": 1}, "classes"),
        ({"classes": 10**9}, "classes"),
        ({"classes": "10"}, "classes"),
        ({"mean": [0.1, 0.2]}, "mean"),
        ({"mean": [math.nan]}, "mean"),
        ({"mean": [None]}, "mean"),
        ({"std": [0.0]}, "std"),
        ({"std": [math.inf]}, "std"),
        ({"std": 1.0}, "std"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_foreign_document_is_refused(change: dict[str, object], culprit: str) -> None:
    with pytest.raises(InputError, match=culprit) as caught:
        Architecture.from_dict(GOOD | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", [None, [], "cnn4", {}, {k: v for k, v in GOOD.items() if k != "std"}])
def test_a_document_without_the_fields_is_refused(document: object) -> None:
    with pytest.raises(InputError, match="expected the fields"):
        Architecture.from_dict(document)


def test_normalize_keeps_its_numbers_with_the_weights() -> None:
    assert set(Normalize((0.1,), (0.2,)).state_dict()) == {"mean", "std"}
