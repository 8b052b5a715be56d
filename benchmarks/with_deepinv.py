"""The training step of an `Equilibrium` through deepinv's optimisers. Needs deepinv."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from deepinv.optim import GD, L2, PGD, DEQConfig, PnP
from deepinv.physics import LinearPhysics
from torch import Tensor, nn

from rglib.core.maps import link_residual
from rglib.core.problems import Observation, observe
from rglib.integrations.deepinv import GradientPrior
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch, mean_square


class Remembering(nn.Module):
    """P, and the z that it was last applied to: deepinv gives out P(z) alone, L_link needs both."""

    def __init__(self, P: nn.Module) -> None:
        super().__init__()
        self.P = P
        self.z = torch.empty(0)

    def forward(self, z: Tensor, sigma: float) -> Tensor:
        """P(z)."""
        self.z = z.detach()
        p: Tensor = self.P(z, sigma)
        return p


@dataclass(frozen=True)
class DeepinvStep:
    """The same step as `benchmarks.training.Step` takes."""

    objective: Equilibrium
    networks: Mapping[str, nn.Module]
    x_hat: Tensor

    def __call__(self) -> Tensor:
        """Forward and backward; the loss."""
        for module in self.networks.values():
            module.zero_grad(set_to_none=True)
        randomness = Batch(self.x_hat, 0, 0).randomness
        degradation = self.objective.distribution.draw(randomness)
        seen = observe(degradation, self.x_hat.cpu(), randomness)
        seen = seen.to(self.x_hat.device)
        physics = LinearPhysics(A=seen.problem.A, A_adjoint=seen.problem.A.adjoint)
        loss = sum([*self._at_x_f(seen, physics), *self._at_x_g(seen, physics)])
        assert isinstance(loss, Tensor)
        loss.backward()
        return loss.detach()

    def _at_x_f(self, seen: Observation, physics: LinearPhysics) -> list[Tensor]:
        plan, sigma = self.objective, seen.problem.sigma
        if plan.forward_backward is None or plan.link is None:
            return []
        P = Remembering(self.networks["P"])
        f = PGD(
            data_fidelity=L2(),
            prior=PnP(P),
            stepsize=plan.eta_fb,
            sigma_denoiser=math.sqrt(plan.eta_fb) * sigma,
            max_iter=plan.stop.max_iterations,
            DEQ=DEQConfig(jacobian_free=True),
            trainable_params=[],
        )
        p = f(seen.y, physics, init=seen.x0)
        residual = link_residual(self.networks["G"](p), P.z, p, variance=plan.eta_fb * sigma**2)
        return [
            plan.forward_backward * mean_square(p - seen.x_hat),
            plan.link * mean_square(residual),
        ]

    def _at_x_g(self, seen: Observation, physics: LinearPhysics) -> list[Tensor]:
        plan = self.objective
        if plan.gradient_descent is None:
            return []
        g = GD(
            data_fidelity=L2(),
            prior=GradientPrior(self.networks["G"]),
            stepsize=plan.eta_gd,
            lambda_reg=seen.problem.sigma**2,
            max_iter=plan.stop.max_iterations,
            DEQ=DEQConfig(jacobian_free=True),
            trainable_params=[],
        )
        x_g = g(seen.y, physics, init=seen.x0)
        return [plan.gradient_descent * mean_square(x_g - seen.x_hat)]
