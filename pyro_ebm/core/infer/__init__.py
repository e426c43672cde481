"""Losses, guides and kernels for the hosts' ``SVI`` and ``MCMC``.

A stock ELBO trains everything except the energies in a model, whose log-densities are frozen in
their parameters. ``EnergyELBO`` wraps it, and adds at each energy-based site a factor of value zero
whose gradient is minus that of an objective's loss. Plates, masks, subsampling and particles apply
to it as to any factor, and one step of ``SVI`` trains decoder, guide and energy. In the guide,
``attach`` declares what else an objective needs. ``MetricsRecorder`` records its metrics.

``PersistentChains`` follow an energy through training. ``LangevinGuide`` replaces an encoder by
short chains on the posterior. ``SamplerKernel`` runs the kernels of this package in the host's
``MCMC``, and ``check_modes`` looks for modes that such a run has missed.
"""
