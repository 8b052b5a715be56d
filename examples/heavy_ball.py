"""Polyak's heavy ball: a solver of your own, on the way to x_g in training and at test time."""

from dataclasses import dataclass

from torch import Tensor

from rglib.core.fixed_point import Map


@dataclass(frozen=True)
class HeavyBall:
    """x <- x - step F(x) + momentum (x - previous), which stops moving where F is zero.

    The state is the iterate before the last one, (B, 3, H, W).
    """

    step_size: float = 0.5  # D is 1-Lipschitz
    momentum: float = 0.9

    def init(self, F: Map, x0: Tensor) -> Tensor:
        """At rest."""
        return x0

    def step(self, F: Map, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next iterate, and this one as the next state."""
        return x - self.step_size * F(x) + self.momentum * (x - state), x

    def select(self, state: Tensor, indices: Tensor) -> Tensor:
        """The state of some images of the batch, where the others have converged."""
        return state[indices]
