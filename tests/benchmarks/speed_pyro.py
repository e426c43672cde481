"""Torch samplers side by side: bare torch, this package, ``ebmkit`` and ``torchebm``.

Run: ``make benchmark``
"""

import warnings

import ebm as ebmkit
import torch
import torchebm.core
import torchebm.samplers
from speed import (
    LEAPFROG_STEP,
    NUM_LEAPFROG,
    NUM_STEPS,
    NUM_TRANSITIONS,
    STEP_SIZE,
    compare,
    layers,
    starts,
)
from torch import nn

import pyro_ebm.pyro as ebm


class Energy(torchebm.core.BaseModel):
    def __init__(self):
        super().__init__()
        linears = []
        for weight, bias in layers():
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
            linears += [linear, nn.SiLU()]
        self.net = nn.Sequential(*linears[:-1])

    def forward(self, x):
        return self.net(x).squeeze(-1) + x.square().sum(-1) / 8.0


energy, start = Energy(), torch.from_numpy(starts())


def ours(sampler, num_steps, *, compile_steps):
    def run():
        ebm.run_chains(
            sampler,
            ebm.EnergyBased(energy, event_shape=start.shape[1:]),
            num_samples=1,
            thinning=num_steps,
            init=start,
            progress_bar=False,
            compile_steps=compile_steps,
        )

    return run


def bare_langevin():
    x = start
    for _ in range(NUM_STEPS):
        inside = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(inside).sum(), inside)
        x = x - STEP_SIZE * gradient + (2 * STEP_SIZE) ** 0.5 * torch.randn_like(x)


@torch.compile(dynamic=False)
def _compiled_move(x, noise):
    gradient = torch.func.grad(lambda x: energy(x).sum())(x)
    return x - STEP_SIZE * gradient + (2 * STEP_SIZE) ** 0.5 * noise


@torch.no_grad()
def compiled_langevin():
    x = start
    for _ in range(NUM_STEPS):
        x = _compiled_move(x, torch.randn_like(x))


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ula, mala = ebm.Langevin(STEP_SIZE), ebm.MALA(STEP_SIZE)
    hmc = ebm.HMC(LEAPFROG_STEP, num_steps=NUM_LEAPFROG)
    rival_ula = torchebm.samplers.LangevinDynamics(energy, step_size=STEP_SIZE, noise_scale=1.0)
    rival_hmc = torchebm.samplers.HamiltonianMonteCarlo(
        energy, step_size=LEAPFROG_STEP, n_leapfrog_steps=NUM_LEAPFROG
    )
    compare(
        "100 ULA steps",
        {
            "bare torch": bare_langevin,
            "bare torch, compiled": compiled_langevin,
            "pyro_ebm": ours(ula, NUM_STEPS, compile_steps=False),
            "pyro_ebm, compiled": ours(ula, NUM_STEPS, compile_steps=True),
            "torchebm": lambda: rival_ula.sample(x=start, n_steps=NUM_STEPS),
            "ebmkit": lambda: ebmkit.LangevinDynamics(STEP_SIZE, NUM_STEPS).sample(energy, start),
        },
        reference="ebmkit",
    )
    compare(
        "100 MALA steps",
        {
            "pyro_ebm": ours(mala, NUM_STEPS, compile_steps=False),
            "pyro_ebm, compiled": ours(mala, NUM_STEPS, compile_steps=True),
            "ebmkit": lambda: ebmkit.MALA(STEP_SIZE, NUM_STEPS).sample(energy, start),
        },
        reference="ebmkit",
    )
    compare(
        "10 HMC transitions of 10 leapfrog steps",
        {
            "pyro_ebm": ours(hmc, NUM_TRANSITIONS, compile_steps=False),
            "pyro_ebm, compiled": ours(hmc, NUM_TRANSITIONS, compile_steps=True),
            "torchebm": lambda: rival_hmc.sample(x=start, n_steps=NUM_TRANSITIONS),
            "ebmkit": lambda: ebmkit.HMC(
                step_size=LEAPFROG_STEP, leapfrog_steps=NUM_LEAPFROG, steps=NUM_TRANSITIONS
            ).sample(energy, start),
        },
        reference="ebmkit",
    )


if __name__ == "__main__":
    # The compiler imports deprecated parts of torch.
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    main()
