"""Where networks run."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from rglib.core.devices import device_named

ROOT = Path(__file__).parents[1]


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("number", [0, 1])
def test_without_a_gpu_each_device_that_is_named_instead_is_one(number, no_gpu):
    with pytest.raises(ValueError, match="PyTorch sees no GPU") as caught:
        device_named("cuda")
    ((key, *names),) = re.findall(r"^(\w+): .*; use (\w+) or (\w+)$", str(caught.value))
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert names[number] in schema["properties"][key]["enum"]
    assert device_named(names[number]) == torch.device("cpu")
