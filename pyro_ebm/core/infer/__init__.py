"""Whatever the hosts' ``SVI`` and ``MCMC`` are handed.

A stock ELBO is right for everything but the energies in a model, whose log-densities are frozen in
their parameters. ``EnergyELBO`` wraps it, and adds at each energy-based site a factor of value zero
whose gradient is minus that of an objective's loss: plates, masks, subsampling and particles apply
to it as to any factor, and one step of ``SVI`` trains decoder, guide and energy. ``attach``
declares, in the guide, what an objective learns besides, and ``MetricsRecorder`` keeps its metrics.

``PersistentChains`` follow an energy through training; ``LangevinGuide`` replaces an encoder by
short chains on the posterior; ``SamplerKernel`` runs the kernels of this package in the host's
``MCMC``, and ``check_modes`` looks for modes that a run of it has missed.
"""
