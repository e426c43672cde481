"""Settings and checks of guides by short Markov chains on the posterior."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.samplers.settings import check_sampler


class LangevinGuide:
    r"""Short Markov chains on the posterior, in place of an encoder.

    Each call starts chains at draws of the priors (of the bases of energy-based priors), takes
    ``num_steps`` steps on :math:`-\log p(x, z)` under the current parameters, and samples the final
    values as ``Delta`` sites: constants, with no gradient through the chains. If the latents are in
    the plates of the data, each data point has its own chain, also with subsampling and many
    particles. If a latent is outside a plate, everything in that plate is one chain.

    The log-density of the guide counts as zero. The loss that ``SVI`` reports therefore estimates
    :math:`-\mathrm E \log p(x, z)`, *without the entropy* of the posterior. It is not a bound on
    the evidence and not comparable with the loss of an encoder; use ``log_marginal`` instead. Its
    gradients are those of maximum likelihood, as far as the chains have converged. Do not use ELBOs
    that weight particles (``RenyiELBO``, ``ReweightedWakeSleep``): they need the density of the
    guide, which is unknown, and would favor draws of high joint density.

    If another guide draws some latents, condition the model on them within that guide:
    ``LangevinGuide(condition(model, data=values))``. Do not hide them with ``block``: they would be
    drawn anew, and the chains would follow no posterior.

    With ``init``, an amortized guide, chains start at its draws, and it learns to imitate their
    final values: the log-density of the guide is then zero with the gradient of
    :math:`-\log q(z)`. The reported loss does not change.

    With ``start="stored"`` each row of the data keeps its own chain, which first starts as above,
    and then continues where it stopped. A few steps are then enough, since parameters change
    slowly. Rows are recognized by their indices in the plates of the latents. Data in batches
    therefore need ``plate("data", size, subsample_size=...)``, or on Pyro ``subsample=``; a plate
    of the size of the batch would treat all batches as the same rows. Masked rows keep their
    position. Use a new guide for other data.

    Args:
        model: The model, vectorized over its plates.
        sampler: The kernel. Default: ``Langevin(0.005)``. Choose its step size by the scale of the
            posterior: chains diverge above twice the smallest posterior variance, and have little
            bias well below it. ``MALA`` has no bias except that of a short run.
        num_steps: Number of steps of each chain.
        init: Guide of the same model that samples every latent from a distribution with a density.
            Default: none.
        start: ``"fresh"`` or ``"stored"``.

    Raises:
        TypeError: If ``sampler`` is no sampler.
        ValueError: If ``start`` is another word. When called: if a latent is discrete, ``init``
            leaves a latent out or, while the host validates, chains have diverged. With stored
            chains: if no plate is around the latents, or the number of rows changes.

    References:
        | Learning latent space energy-based prior model (Pang, Han, Nijkamp, Zhu and Wu, 2020)
          https://arxiv.org/abs/2006.08205
        | Learning latent energy-based models via interacting particle Langevin dynamics (Marks,
          Wang and Akyildiz, 2025), https://arxiv.org/abs/2510.12311
    """

    sampler: Any
    num_steps: int
    start: str

    def _configure(self, sampler: Any, num_steps: int, start: str) -> None:
        self.sampler = check_sampler(sampler)
        self.num_steps = check_positive_integer("num_steps", num_steps)
        self.start = start
        check_choice("start", start, ("fresh", "stored"))

    def _diverged(self, latents: Iterable[str]) -> ValueError:
        return ValueError(
            f"Expected {self.sampler} to give finite draws of {list(latents)}, got NaN or infinity:"
            " lower its `step_size`, or look at the model."
        )


def stored_name(posterior: Any, around: Iterable[str]) -> str:
    """Name of the stored positions of a posterior, which differ by the plates around the model."""
    return "$".join([next(iter(posterior.latents)), "positions", *around])


def resume(name: str, stored: Any, shape: tuple[int, ...], index: Any, start: Any) -> Any:
    """Positions where chains stopped; ``start`` where they never ran, or diverged.

    Args:
        name: Name of the stored positions.
        stored: Of all rows, shape ``(rows, size)``.
        shape: What that shape should be.
        index: Rows at hand, shape ``(*plate_shape,)``.
        start: Other positions, shape ``(*plate_shape, size)``.
    """
    if tuple(stored.shape) != shape:
        raise ValueError(
            f"Expected stored positions {name!r} of shape {shape}, for each row of the data, got "
            f"{tuple(stored.shape)}: batches of changing size need a plate of the size of all "
            "data, which is subsampled; other data need another guide."
        )
    xp = array_namespace(start)
    before = stored[index]
    ran = xp.all(xp.isfinite(before), axis=-1, keepdims=True)
    return xp.where(ran, before, start)


def check_density(name: str, site: Any, point_mass: type) -> None:
    """Raise if a site's message in an amortized guide is missing, or has a ``point_mass``."""
    if site is None or isinstance(site["fn"], point_mass):
        got = "none" if site is None else "a Delta"
        raise ValueError(f"Expected `init` to have a density at site {name!r}, got {got}.")


def enter_plates(plates: Mapping[str, Any], site: Mapping[str, Any]) -> ExitStack:
    """Enter those of some plates, by name, that are around a site of the model."""
    stack = ExitStack()
    for frame in site["cond_indep_stack"]:
        if frame.dim is not None and frame.name in plates:
            stack.enter_context(plates[frame.name])
    return stack
