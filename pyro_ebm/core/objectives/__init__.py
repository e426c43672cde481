r"""Training losses of energies, one file a paper.

An objective is a frozen dataclass of settings with one method, ``loss(distribution, value)`` (in
NumPyro with a random key first). It makes the draws that it needs (noisy copies, draws of the base,
of the model or of a generator), calls the energy once on all of them, and passes the energies to a
formula of this folder, which works on arrays of any library. It returns a loss for each value,
differentiable in the parameters of energy and base, and metrics to read during training. If it
learns or keeps more than the energy (a critic, a generator, a log-normalizer, chains), these parts
are attached in the guide and passed to ``loss`` as keyword arguments.
"""
