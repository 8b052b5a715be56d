"""What made results that nothing made: a provenance for tests of what is written."""

from rglib.records.provenance import make_provenance


def toy_provenance(title="Embedded"):
    """Of a small run on a stand-in of this title."""
    config = {
        "run": "r",
        "seeds": [0],
        "precision": {"train": "auto", "evaluate": "float32"},
        "network": {"widths": [8], "blocks": 1},
        "evaluation": {
            "solver": "adam",
            "iterations": 2,
            "tolerance": None,
            "average": False,
            "x0": "released",
        },
    }
    test_set = {"title": title, "stand_in_for": "Set5", "images": []}
    return make_provenance(config, test_set=test_set, cards=[])
