"""Training by two processes: what each of them finds, in one start of both, which takes long."""

import math
import time
import warnings
from datetime import timedelta

import pyro
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule
from pyro.optim import SGD, Adam
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

import pyro_ebm.pyro as ebm
from helpers.hosts.pyro import MLP, Bowl, attaching, empty_guide, prior
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

NUM_STEPS, NUM_PROCESSES = 4, 2
X = torch.linspace(-2, 2, 64).reshape(32, 2)
CHAINS = ebm.PersistentChains(8, (2,), sampler=ebm.Langevin(0.1), num_steps=3, buffer_size=12)


class Model(PyroModule):
    def __init__(self, energy):
        super().__init__()
        self.energy = energy

    def forward(self, x):
        with pyro.plate("data", len(X), subsample_size=len(x)):
            pyro.sample("x", prior(self.energy), obs=x)


class Guide(PyroModule):
    def forward(self, x):
        ebm.attach("x", chains=CHAINS)


def loss_of(objective):
    return ebm.EnergyELBO(objective, num_normalizer_samples=4)


def make_svi(energy, guide, objective, optimizer=None):
    optimizer = ebm.AllReduce(optimizer or Adam({"lr": 0.01}))
    return SVI(Model(energy), guide, optimizer, loss_of(objective))


def weights_of(energy):
    return [weight.detach().clone() for weight in energy.parameters()]


# --- the two ways to train ---


def by_optimizer(rank, rows):
    energy = MLP()
    svi = make_svi(energy, Guide(), ebm.ContrastiveDivergence(), SGD({"lr": 1e-3}))
    pyro.set_rng_seed(10 + rank)
    losses = [svi.step(rows) for _ in range(NUM_STEPS)]
    chains = pyro.get_param_store()["x$chains"].detach().clone()
    return {"losses": losses, "weights": weights_of(energy), "chains": chains}


def by_module(rank, rows):
    energy = MLP()
    with pyro.settings.context(module_local_params=True):
        module = loss_of(ebm.ContrastiveDivergence())(Model(energy), Guide())
        parallel = DistributedDataParallel(module)
        optimizer = torch.optim.SGD(parallel.parameters(), lr=1e-3)
        pyro.set_rng_seed(10 + rank)
        losses = []
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            losses.append(parallel(rows))
            losses[-1].backward()
            optimizer.step()
    losses = [loss.item() for loss in losses]
    chains = module.chains.values["x$chains"].clone()
    return {"losses": losses, "weights": weights_of(energy), "chains": chains}


def from_unequal_starts(rank, rows):
    energy = Bowl(0.5 + rank)
    svi = make_svi(energy, empty_guide, ebm.ScoreMatching())
    svi.step(rows)
    return energy.weight.item()


# --- errors on one process ---


class Failing:
    """Energies of values, NaN on the last process while ``fails``."""

    def __init__(self, rank):
        self.is_last, self.fails = rank == NUM_PROCESSES - 1, False

    def loss(self, distribution, value):
        energy = scaled_energy(distribution, value)
        return Loss(energy * math.nan if self.fails and self.is_last else energy, {})


def message_of(step, *args):
    try:
        step(*args)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def failing_step_of_svi(rank, rows):
    energy, objective = Bowl(), Failing(rank)
    svi = make_svi(energy, empty_guide, objective)
    broken = rows.clone()
    broken[0, 0] = math.nan if rank else 0.0
    messages = [message_of(svi.step, broken)]
    svi.step(rows)
    before, objective.fails = energy.weight.item(), True
    messages.append(message_of(svi.step, rows))
    after, gradient = energy.weight.item(), energy.weight.grad.item()
    objective.fails = False
    svi.step(rows)
    last = energy.weight.item()
    return {"messages": messages, "path": [before, after, last], "gradient": gradient}


def failing_step_of_module(rank, rows):
    energy, objective = Bowl(), Failing(rank)
    with pyro.settings.context(module_local_params=True):
        parallel = DistributedDataParallel(loss_of(objective)(Model(energy), lambda x: None))
        parallel(rows).backward()
        objective.fails = True
        message = message_of(parallel, rows)
        objective.fails, energy.weight.grad = False, None
        parallel(rows).backward()
    return {"messages": [message], "gradient": energy.weight.grad.item()}


def evaluation_on_one(rank, rows):
    """Numbers that one process reads while the others do something else."""
    guide = attaching("x", chains=CHAINS)
    svi = make_svi(Bowl(), guide, ebm.ContrastiveDivergence())
    svi.step(rows)
    if rank:
        return None
    elbo = ebm.EnergyELBO(ebm.ContrastiveDivergence(), num_normalizer_samples=64)
    metrics = elbo.metrics(svi.model, svi.guide, rows)
    return svi.evaluate_loss(rows), metrics["x"]["objective"].item()


def warnings_of(rank, rows):
    """Warnings of a first step and of one more, by objective."""
    found = {}
    for objective in (ebm.MaximumLikelihood(), ebm.DenoisingScoreMatching(0.5)):
        pyro.clear_param_store()
        svi = make_svi(Bowl(), empty_guide, objective)
        with warnings.catch_warnings(record=True, action="always") as caught:
            for _ in range(2):
                svi.step(rows)
        found[type(objective).__name__] = [str(warning.message) for warning in caught]
    return found


# --- the log of a mean over all processes ---


def gradients_of_log_means(rank, rows):
    """Slope in a of log mean exp(-a x) over all rows: by itself, and by processes."""
    half = X[len(rows) * rank :][: len(rows)]

    def gradient(function, rows=half):
        a = torch.tensor(0.3, requires_grad=True)
        function(-a * rows[:, 0]).backward()
        if len(rows) < len(X):
            distributed.all_reduce(a.grad)
            a.grad /= NUM_PROCESSES
        return a.grad.item()

    def local(x):
        return x.logsumexp(0) - math.log(len(x))

    def pooled(x):
        return over_processes(local(x))

    def own_slice_put_back(x):
        parts = [torch.empty_like(x) for _ in range(NUM_PROCESSES)]
        distributed.all_gather(parts, x.detach())
        parts[rank] = x
        return local(torch.cat(parts))

    ways = local, pooled, own_slice_put_back
    return {"exact": gradient(local, X)} | {way.__name__: gradient(way) for way in ways}


def over_processes(log_mean):
    """The log of a mean of exponentials over all processes, from that of each."""
    fixed = log_mean.detach()
    parts = [torch.empty_like(fixed) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, fixed)
    total = torch.stack(parts).logsumexp(0) - math.log(len(parts))
    return total + (fixed - total).exp() * (log_mean - fixed)


# --- the start of both ---

WORK = (
    by_optimizer,
    by_module,
    from_unequal_starts,
    failing_step_of_svi,
    failing_step_of_module,
    evaluation_on_one,
    warnings_of,
    gradients_of_log_means,
)


def run(folder, limit=200):
    """Do all work by as many processes; what each returned, by name."""
    context = multiprocessing.spawn(_work, (str(folder),), NUM_PROCESSES, join=False)
    end = time.monotonic() + limit
    try:
        while not context.join(end - time.monotonic()):
            if time.monotonic() > end:
                raise TimeoutError(f"A process still runs after {limit} seconds.")
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(NUM_PROCESSES)]


def _work(rank, folder):
    torch.set_num_threads(1)
    options = {"rank": rank, "world_size": NUM_PROCESSES, "timeout": timedelta(seconds=120)}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", **options)
    found = {}
    for part in WORK:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        found[part.__name__] = part(rank, X[rank::NUM_PROCESSES])
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
