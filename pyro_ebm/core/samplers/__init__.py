r"""Markov kernels on a potential, and the runs made of them.

A *potential* :math:`U` is minus a log-density up to a constant, over unconstrained space. A kernel
is a frozen dataclass with two methods, ``state = init(potential, position)`` and ``state, info =
step(potential, state)`` (NumPyro: a key first), and two attributes of its warm-up. It has no
length: that belongs to the run, which is a *short run* (one position a chain, the last) or a set of
*chains* with warm-up. All kernels are vectorized over chains, which share a step size, and a scale
for each coordinate. MALA and HMC accept or reject and leave the density invariant; the two Langevin
kernels do not. Replica exchange runs one of the exact ones at several temperatures, whose states
travel in that of the cold level. Columns of codes move by ``Gibbs`` and ``GibbsWithGradients``.

Chains find the shape of a mode, not its weight. Draws with the right weights of modes are those of
``SMC``, whose particles move from the base to the density along a path of temperatures and are
resampled on the way (``run_smc``; what ``sample`` draws by), and in few dimensions of ``Grid``.

Kernels know no distribution. A ``Target`` joins the two: the bijection to unconstrained space, and
the potential there.
"""
