"""Kept iterates: batches that live across updates, and go on from where they were.

The weights change little from one update to the next, and so do the fixed points. A batch that is
visited again needs a few steps with the present networks instead of a hundred from its start.
Relatives: the reuse of fixed points in deep equilibrium models (Bai et al., "Deep equilibrium
optical flow estimation", 2022) and persistent chains in energy-based models (Tieleman, "Training
restricted Boltzmann machines using approximations to the likelihood gradient", 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rglib.core.fixed_point import KeepableSolver, Map

Iterate = dict[str, Any]  # x, and the fields of a solver's state: tensors (B, ...) and numbers


@dataclass(frozen=True)
class Keep:
    """How long batches live, and how far each visit takes their iterates.

    Attributes:
        batches: that live at a time; an update visits the next of them in turn.
        visits: of a batch, until another takes its place.
        first_steps: of the solver on the first visit.
        steps: of the solver on each later one.
        guard: an image whose iterate has a larger entry in absolute value starts again.
    """

    batches: int = 64
    visits: int = 16
    first_steps: int = 24
    steps: int = 3
    guard: float = 100.0

    def drawn_at(self, step: int) -> int:
        """The step at which the batch of a step was drawn, which tells batches apart.

        The places of the pool are filled anew one after another, so that no two rounds of it differ
        much in cost.
        """
        turn, place = divmod(step, self.batches)
        age = (turn + place * self.visits // self.batches) % self.visits
        return max(turn - age, 0) * self.batches + place

    def last_visit(self, step: int) -> bool:
        """Whether the batch of a step is not visited again."""
        return self.drawn_at(step + self.batches) != self.drawn_at(step)


@dataclass
class KeptIterates:
    """The iterates of one batch by name, between its visits."""

    keep: Keep
    iterates: dict[str, Iterate] = field(default_factory=dict)

    @torch.no_grad()
    def advance(
        self, name: str, solver: KeepableSolver[Any], F: Map, x0: Tensor
    ) -> tuple[Tensor, Any, Tensor]:
        """Take an iterate a few steps further: x (B, 3, H, W), the solver's state, what was lost.

        An image with an entry beyond the guard, or not finite, goes back to x0 and starts again;
        which ones did is the last thing returned, (B,) of bool.
        """
        if name in self.iterates:
            fields = dict(self.iterates[name])
            x, state, steps = fields.pop("x"), solver.state(fields), self.keep.steps
        else:
            x, state, steps = x0, solver.init(F, x0), self.keep.first_steps
        for _ in range(steps):
            x, state = solver.step(F, x, state)
        lost = ~(x.abs().flatten(1).amax(dim=1) <= self.keep.guard)  # a NaN is lost too
        image = lost.view(-1, 1, 1, 1)
        x, state = torch.where(image, x0, x), solver.restarted(state, x0, image)
        self.iterates[name] = {"x": x, **solver.fields(state)}
        return x, state, lost


@dataclass
class Pool:
    """The batches that live at a step of training, by the step at which they were drawn."""

    keep: Keep
    living: dict[int, KeptIterates] = field(default_factory=dict)
    images: dict[int, Tensor] = field(default_factory=dict)

    def visit(self, step: int, draw: Callable[[int], Tensor]) -> tuple[int, Tensor, KeptIterates]:
        """The batch of a step: when it was drawn, its images and its iterates.

        Args:
            step: of training.
            draw: the images x_hat (B, 3, H, W) of the batch drawn at a step.
        """
        drawn_at = self.keep.drawn_at(step)
        if drawn_at not in self.images:
            self.images[drawn_at] = draw(drawn_at)
        if drawn_at not in self.living:
            self.living[drawn_at] = KeptIterates(self.keep)
        found = drawn_at, self.images[drawn_at], self.living[drawn_at]
        if self.keep.last_visit(step):
            del self.images[drawn_at], self.living[drawn_at]
        return found

    def state(self, whole: Callable[[Tensor], Tensor]) -> dict[int, dict[str, Iterate]]:
        """All iterates, for a checkpoint; ``whole`` joins the shares of several processes."""
        return {
            drawn_at: {
                name: {key: _whole(value, whole) for key, value in iterate.items()}
                for name, iterate in kept.iterates.items()
            }
            for drawn_at, kept in self.living.items()
        }

    def load(
        self, state: Mapping[int, Mapping[str, Iterate]], own: Callable[[Tensor], Tensor]
    ) -> None:
        """Take up what `state` returned; ``own`` takes this process's share of a batch."""
        self.images.clear()
        self.living = {
            drawn_at: KeptIterates(
                self.keep,
                {
                    name: {key: _whole(value, own) for key, value in iterate.items()}
                    for name, iterate in iterates.items()
                },
            )
            for drawn_at, iterates in state.items()
        }


def _whole(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(value) if isinstance(value, Tensor) else value
