"""Regularizing gradients beside deepinv's own priors on a photograph: docs/deepinv.md.

Needs deepinv: python examples/deepinv_priors.py
"""

import skimage.data
import torch
from deepinv.optim import FISTA, GD, L2, PGD, RED, PnP, Tikhonov, TVPrior
from tabulate import tabulate

from rglib.core.fixed_point import slope
from rglib.core.metrics import psnr
from rglib.core.tensors import to_tensor
from rglib.integrations import deepinv as rg

PHOTOGRAPH = to_tensor(skimage.data.astronaut()[:128, 160:288])
PROBLEMS = {"deblur_s1.6": 2.55 / 255, "sr2_bicubic_n0.01": 2.55 / 255, "completion80": 1 / 255}


def tikhonov(weight):
    """Lambda is the weight."""
    return GD(data_fidelity=L2(), prior=Tikhonov(), lambda_reg=weight, stepsize=1.0, max_iter=300)


def tv(weight):
    """Likewise."""
    prior = TVPrior(n_it_max=30)
    return PGD(data_fidelity=L2(), prior=prior, lambda_reg=weight, stepsize=1.0, max_iter=300)


def pnp(sigma):
    """Sigma is the strength of the denoiser, on [0, 1]."""
    prior = PnP(rg.denoiser("mtdeq"))
    return PGD(data_fidelity=L2(), prior=prior, sigma_denoiser=sigma, stepsize=1.0, max_iter=100)


def red(weight):
    """Lambda is the weight; the denoiser's strength is 10/255."""
    prior = RED(rg.denoiser("mtdeq"))
    options = {"sigma_denoiser": 10 / 255, "stepsize": 1 / (1 + weight), "max_iter": 300}
    return GD(data_fidelity=L2(), prior=prior, lambda_reg=weight, **options)


def gradient(method, posed, s):
    """FISTA, implicit in the data term; its step is 0.7 of one over the slope of s^2 G."""
    prior = rg.prior(method)
    step = 0.7 / (s**2 * slope(prior.G, posed.x0).item())
    options = {"stepsize": step, "max_iter": 150, "g_first": True}
    return FISTA(data_fidelity=L2(), prior=prior, lambda_reg=s**2, **options)


THEIRS = {  # with the parameters that are tried: the best on this photograph counts
    "Tikhonov, GD": (tikhonov, (0.0001, 0.001, 0.01, 0.1)),
    "TV, PGD": (tv, (0.0001, 0.0003, 0.001, 0.003, 0.01)),
    "PnP with MTDEQ's P, PGD": (pnp, (1 / 255, 2 / 255, 4 / 255, 12 / 255, 36 / 255)),
    "RED with MTDEQ's P, GD": (red, (0.03, 0.1, 0.3, 1.0)),
}
OURS = ("pnpreg", "rg1", "deqgd", "rerg")


@torch.no_grad()
def main():
    """Print the table, PSNR in dB, with the best of the parameters that were tried."""
    torch.manual_seed(0)
    rows = {name: [name] for name in ("start", *THEIRS, *(f"{name}, FISTA" for name in OURS))}
    for problem, s in PROBLEMS.items():
        posed = rg.posed(problem, PHOTOGRAPH)
        y, physics, x0 = posed.y, posed.physics, posed.x0

        def decibels(x, x_hat=posed.x_hat):
            return psnr(x, x_hat).item()

        rows["start"].append(f"{decibels(x0):.2f}")
        for name, (method, parameters) in THEIRS.items():
            found = {one: decibels(method(one)(y, physics, init=x0)) for one in parameters}
            best = max(found, key=found.get)
            rows[name].append(f"{found[best]:.2f} ({best:.2g})")
        for name in OURS:
            x = gradient(name, posed, s)(y, physics, init=(x0, x0))
            rows[f"{name}, FISTA"].append(f"{decibels(x):.2f}")
    print(tabulate(rows.values(), headers=["prior", *PROBLEMS], tablefmt="pipe"))


if __name__ == "__main__":
    main()
