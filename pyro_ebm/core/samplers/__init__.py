r"""Markov kernels on a potential, and the runs made of them.

A *potential* :math:`U` is minus a log-density up to a constant, over unconstrained space. A kernel
is a frozen dataclass with two methods, ``state = init(potential, position)`` and ``state, info =
step(potential, state)`` (NumPyro: a key first), and two attributes for warm-up. The number of steps
belongs to the run: a *short run*, which returns the last position of each chain, or a set of
*chains* with warm-up. All kernels are vectorized over chains, which share a step size, and a scale
for each coordinate. MALA and HMC accept or reject and leave the density invariant; the two Langevin
kernels do not. Replica exchange runs an exact kernel at several temperatures. Columns of codes
(categories as whole numbers) move by ``Gibbs`` and ``GibbsWithGradients``.

Chains find the shape of a mode, but not always its weight. For draws with the right weights of
modes use ``SMC``, the default of ``sample``, whose particles move from the base to the density
along a path of temperatures and are resampled on the way (``run_smc``), or ``Grid`` in few
dimensions.

Kernels know nothing about distributions. A ``Target`` connects the two: it has the bijection to
unconstrained space, and the potential there.
"""
