r"""Training losses of energies, one file a paper.

An objective is a frozen dataclass of settings with one method, ``loss(distribution, value)``. It
draws what it needs (perturbed copies, draws of the base, of the model or of a generator), calls
the energy once on all of them, and hands the numbers to a formula of this folder, which is
arithmetic on arrays of any library. The result is a loss for each value, differentiable in the
parameters of energy and base, and metrics to read during training. Learned parts beside the energy
(a critic, a generator, a log-normalizer, chains) are attached in the guide and arrive as keyword
arguments.
"""
