"""Whatever the hosts' ``SVI`` and ``MCMC`` are handed.

``EnergyELBO`` wraps a stock ELBO and trains energies beside it; ``attach`` declares, in the guide,
what an objective learns besides; ``PersistentChains`` follow an energy through training;
``LangevinGuide`` replaces an encoder by short chains on the posterior; ``SamplerKernel`` runs the
kernels of this package in the host's ``MCMC``.
"""
