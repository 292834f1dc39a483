"""Plans as text: round trip, and one sentence for everything that can be wrong in an edited file."""

import json
import re

import pytest

from lutq_hw.errors import PlanError
from lutq_hw.plan import LayerPlan, Plan, PoolPlan

PLAN = Plan("ab" * 32, (
    LayerPlan(node="conv1", unit="shift-add", pe=3, channels=1, rows=5, index_memory="luts", output_lanes=3),
    PoolPlan(node="pool", channels=2),
    LayerPlan(node="fc", unit="multiplier", pe=1, channels=2, output="scores", output_memory="bram"),
), "icebreaker")


def test_round_trip():
    again = Plan.from_json(PLAN.to_json())
    assert again == PLAN
    assert again.to_json() == PLAN.to_json()
    assert again["pool"] == PoolPlan(node="pool", channels=2)
    assert PLAN["conv1"].simd == 5


def edited(**changes):
    raw = json.loads(PLAN.to_json())
    layer = changes.pop("layer", {})
    raw["layers"][0].update(layer)
    for key in changes.pop("drop", ()):
        del raw["layers"][0][key]
    raw.update(changes)
    return json.dumps(raw)


@pytest.mark.parametrize(("text", "sentence"), [
    ("{", "plan must be JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ("[]", 'plan must be a JSON object with "format": "lutq plan"'),
    (edited(format="other"), 'plan must be a JSON object with "format": "lutq plan"'),
    (edited(version=2), "plan version must be 1, not 2; make the plan again"),
    (edited(digest=5), "plan must have a digest (string), a board (string or null) and layers (list)"),
    (edited(layers=[3]), 'layers[0] must be an object with a "node"'),
    (edited(layer={"pe": 0}), "layer conv1: pe must be a positive integer, not 0"),
    (edited(layer={"pe": True}), "layer conv1: pe must be a positive integer, not True"),
    (edited(layer={"unit": 7}), "layer conv1: unit must be a string, not 7"),
    (edited(layer={"index_memory": "spram"}), "layer conv1: index_memory must be bram or luts, not 'spram'"),
    (edited(layer={"simd": 5}), ("layer conv1: field must be one of node, unit, pe, channels, rows, index_memory, output, "
                                "output_lanes, output_memory, terms, spread, not 'simd'")),
    (edited(drop=["pe"]), "layer conv1: field pe must be given"),
])
def test_wrong_text(text, sentence):
    with pytest.raises(PlanError, match=f"^{re.escape(sentence)}$"):
        Plan.from_json(text)


def test_missing_entry():
    with pytest.raises(PlanError, match=r"^plan must have an entry for layer conv9, but has none; make the plan again$"):
        PLAN["conv9"]


def test_unreadable_file(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(PlanError, match=f"^{re.escape(str(path))}: plan file must be readable: No such file or directory$"):
        Plan.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=f"^{re.escape(str(path))}: plan must be JSON text$"):
        Plan.load(path)
    path.write_text(PLAN.to_json())
    assert Plan.load(path) == PLAN
