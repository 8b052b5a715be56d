"""DEQGD with Huber's loss instead of the square: an objective, and with it a seventh method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.nn.functional import huber_loss

from rglib.core.fixed_point import StoppingRule, solve, solver_named
from rglib.core.maps import GradientStep, RegularizedGradient
from rglib.core.problems import DataGradient, TrainingDistribution, observe
from rglib.training.objectives.losses import Batch, Losses, Networks


@dataclass(frozen=True)
class HuberDescent:
    """Huber's loss of g(x_g) - x_hat, x_g a zero of D + sigma^2 G.

    Attributes:
        delta_255: up to this error, on the 0..255 scale, the loss is quadratic, beyond it linear.
        equilibrium: the section of the configuration.
        training_problems: the section of the configuration.
    """

    learns: ClassVar = ("G",)  # the networks that are trained
    uses: ClassVar = ()  # those that are needed and left as they are

    delta_255: float
    equilibrium: Mapping[str, Any]
    training_problems: Mapping[str, Any]

    def __call__(self, networks: Networks, batch: Batch) -> Losses:
        randomness, x_hat = batch.randomness, batch.x_hat
        degradation = TrainingDistribution.of(self.training_problems).draw(randomness)
        seen = observe(degradation, x_hat, randomness)
        D = DataGradient(seen.problem.A, seen.y)
        gradient = RegularizedGradient(networks["G"], D, seen.problem.sigma)
        eta = self.equilibrium["eta_gd"]
        solver = solver_named(self.equilibrium["solver"], lr=eta)
        x_g = solve(solver, gradient, seen.x0, StoppingRule.of(self.equilibrium)).x
        restored = GradientStep(gradient, eta)(x_g)  # with gradients: Jacobian-free
        return Losses({"huber": huber_loss(restored, seen.x_hat, delta=self.delta_255 / 255)})
