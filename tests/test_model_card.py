import json
import re
from pathlib import Path

import pytest

from rglib.records.model_card import Budget, CardError, ModelCard

SHIPPED = sorted((Path(__file__).parents[1] / "weights").glob("*.card.json"))
NETWORK = {"widths": [4, 6, 8, 8], "blocks": 1}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_card_that_ships_is_read_and_written_with_all_that_it_says(path, tmp_path):
    there = json.loads(path.read_text())
    card = ModelCard.read(path)
    card.write(tmp_path / "card.json")
    written = json.loads((tmp_path / "card.json").read_text())
    assert written == {key: value for key, value in there.items() if value is not None}
    assert ModelCard.read(tmp_path / "card.json") == card
    assert card.budget == Budget(there["steps"], there["batch"], there["crop"])


def test_what_a_card_does_not_know_survives():
    content = {"stage": "rerg", "given": True, "network": NETWORK, "url": "here", "later": [1]}
    card = ModelCard.of(content)
    assert card.more == {"url": "here", "later": [1]} and card.to_dict() == content


def test_a_card_over_an_older_one_says_what_both_say_and_its_own_first():
    older = ModelCard(stage="a", network=NETWORK, steps=7, seed=1, more={"later": 1})
    card = ModelCard(stage="b", network={**NETWORK, "blocks": 2}, given=True, seed=0).over(older)
    assert card.to_dict() == {
        "stage": "b",
        "given": True,
        "network": {**NETWORK, "blocks": 2},
        "steps": 7,
        "seed": 0,
        "later": 1,
    }
    assert card.budget is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "is not a JSON object"),
        ('{"stage": "a"}', "`network` must say widths and blocks"),
        ('{"stage": "a", "network": [1]}', "`network` must say widths and blocks"),
        (json.dumps({"network": NETWORK}), "`stage` must name"),
        (json.dumps({"stage": "a", "network": {**NETWORK, "Q": "m:C"}}), "and perhaps P and G"),
    ],
)
def test_what_is_no_card_is_refused_by_its_name(text, message, tmp_path):
    path = tmp_path / "a.card.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CardError, match=f"{re.escape(str(path))}: .*{message}"):
        ModelCard.read(path)
