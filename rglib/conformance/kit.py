"""The file of the kit: made by `make`, read by `Kit.read`, held against an adapter by `conform`.

The page on conformance says what each tensor is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

from rglib.conformance.cases import (
    DEGRADATIONS,
    Case,
    S,
    drawn_image,
    drawn_weights,
    network_of,
)
from rglib.conformance.checks import CHECKS, Finding, Inputs, Status, compare
from rglib.conformance.reference import Reference
from rglib.core.operators import downsampling_taps
from rglib.core.problems import Degradation, SuperResolution
from rglib.files import replacing

SHIPPED = Path(__file__).parent / "kit.safetensors"
FORMAT = "1"  # raised when a name or a meaning changes
ROLES = ("P", "G")
IN_EVERY_CASE = ("crop", "observe", "start")  # what calls are made with

Tensors = Mapping[str, Tensor]


class KitError(ValueError):
    """A file that is no conformance kit of this version; the message names it."""


@dataclass(frozen=True)
class Kit:
    """The tensors of the kit by name, see the page on conformance."""

    tensors: Tensors

    @staticmethod
    def read(path: Path = SHIPPED) -> Kit:
        """Read a kit, that of the package by default.

        Raises:
            KitError: the file is missing, is no kit, or is of another format.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                found = (file.metadata() or {}).get("kit")
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise KitError(f"{path}: cannot be read as a conformance kit ({error})") from error
        if found != FORMAT:
            raise KitError(f"{path}: is no conformance kit of format {FORMAT}")
        needed = ["image", *(f"{case}/{name}" for case in DEGRADATIONS for name in IN_EVERY_CASE)]
        if lacks := [name for name in needed if name not in tensors]:
            raise KitError(f"{path}: has no {lacks[0]}; {SHIPPED.name} of rglib is whole")
        return Kit(tensors)

    def of_case(self, name: str) -> dict[str, Tensor]:
        """The tensors of a case by the name of their check."""
        before = f"{name}/"
        return {
            key.removeprefix(before): value
            for key, value in self.tensors.items()
            if key.startswith(before)
        }

    def inputs(self, name: str) -> Inputs:
        """What the calls of a case are made with."""
        held = self.of_case(name)
        case = bare_case(name, held["crop"])
        return Inputs(
            case=replace(case, mask=held.get("mask"), kernel=held.get("kernel")),
            image=self.tensors["image"],
            x_hat=held["crop"],
            y=held["observe"],
            x0=held["start"],
            P=network_of("P", self._weights("P")),
            G=network_of("G", self._weights("G")),
        )

    def _weights(self, role: str) -> dict[str, Tensor]:
        before = f"weights/{role}/"
        return {
            name.removeprefix(before): value
            for name, value in self.tensors.items()
            if name.startswith(before)
        }


def bare_case(name: str, x_hat: Tensor) -> Case:
    """A case without its mask and kernel, for a cropped image (1, 3, H, W)."""
    degradation = DEGRADATIONS[name]
    return Case(
        name=name,
        task=degradation.task,
        sigma=degradation.sigma,
        s=S,
        factor=degradation.factor if isinstance(degradation, SuperResolution) else 1,
        height=x_hat.shape[-2],
        width=x_hat.shape[-1],
        mask=None,
        kernel=None,
        first=_first_tap(degradation),
    )


def _first_tap(degradation: Degradation) -> int:
    if not isinstance(degradation, SuperResolution):
        return 0
    return downsampling_taps(degradation.factor, kernel=degradation.kernel)[1]


def make() -> Kit:
    """Compute every tensor of the kit with rglib, on the CPU in float32."""
    image = drawn_image()
    weights = {role: drawn_weights(role) for role in ROLES}
    tensors = {"image": image}
    for role in ROLES:
        tensors |= {f"weights/{role}/{key}": value for key, value in weights[role].items()}
    P, G = (network_of(role, weights[role]) for role in ROLES)
    reference = Reference()
    for name in DEGRADATIONS:
        case = bare_case(name, DEGRADATIONS[name].crop(image))
        x_hat = reference.crop(case, image)
        y = reference.observe(case, x_hat)
        inputs = Inputs(case, image, x_hat, y, reference.start(case, y), P, G)
        for check in CHECKS:
            if case.task in check.tasks:
                tensors[f"{name}/{check.name}"] = check.value(reference, inputs)
        tensors |= {
            f"{name}/{key}": torch.tensor(getattr(case, key))
            for key in ("sigma", "s", "factor", "first")
        }
    return Kit(tensors)


def write(kit: Kit, path: Path) -> None:
    """Write a kit as safetensors.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save

    plain = {name: value.clone().contiguous() for name, value in kit.tensors.items()}
    with replacing(path) as partial:
        partial.write_bytes(save(plain, metadata={"kit": FORMAT}))


def conform(adapter: object, kit: Kit, *, cases: Sequence[str] | None = None) -> list[Finding]:
    """Hold an adapter against the kit.

    Args:
        adapter: an object with some of the methods of `Reference`.
        kit: what to compare with.
        cases: names of `DEGRADATIONS`; None takes all.

    Returns:
        A finding for every case and check that concerns it, in the order of the protocol: all
        cases of the first check, then of the second.
    """
    found = [
        finding
        for name in DEGRADATIONS
        if cases is None or name in cases
        for finding in compare(adapter, kit.inputs(name), kit.of_case(name), checks=CHECKS)
    ]
    order = [check.name for check in CHECKS]
    return sorted(found, key=lambda finding: order.index(finding.check))


def first_departure(findings: Sequence[Finding]) -> Finding | None:
    """The departure that comes first in the protocol, None if there is none."""
    return next((one for one in findings if one.status == Status.DEPARTS), None)


def as_text(findings: Sequence[Finding]) -> str:
    """A table with a line for each check, then the first departure in words."""
    rows: list[tuple[str, str, str, str, str]] = []
    for check in CHECKS:
        own = [one for one in findings if one.check == check.name]
        count = Counter(one.status for one in own)
        compared = count[Status.AGREES] + count[Status.DEPARTS]
        if not compared:
            rows.append((check.name, Status.NOT_OFFERED, "", f"{check.tolerance:.0e}", ""))
            continue
        worst = max(own, key=lambda one: one.deviation)
        verdict = f"{count[Status.AGREES]} of {compared} agree"
        departing = ", ".join(one.case for one in own if one.status == Status.DEPARTS)
        rows.append(
            (check.name, verdict, f"{worst.deviation:.1e}", f"{check.tolerance:.0e}", departing)
        )
    headers = ("check", "cases", "largest deviation", "tolerance", "departs in")
    table = tabulate(
        rows, headers=headers, disable_numparse=True, maxcolwidths=[None, None, None, None, 60]
    )
    return f"{table}\n\n{_summary(findings)}"


def _summary(findings: Sequence[Finding]) -> str:
    departure = first_departure(findings)
    if departure is None:
        return "Everything that is offered agrees."
    says = next(check.says for check in CHECKS if check.name == departure.check)
    much = f" by {departure.deviation:.2g} of the largest value"
    return (
        f"It first departs at {departure.check} of {departure.case}"
        f"{much if math.isfinite(departure.deviation) else ''}: {departure.detail}.\n"
        f"{departure.check}: {says}."
    )
