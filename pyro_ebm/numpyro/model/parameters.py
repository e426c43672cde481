"""Parameters handed to a model, as ``numpyro.infer.Predictive`` takes them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from jax import Array
from numpyro.handlers import substitute
from numpyro.primitives import Messenger

# Types of sites whose values come from training.
TRAINED = ("param", "mutable")


def run_trained(
    function: Callable[..., Any], params: Mapping[str, Any] | None, /, *args: Any, **kwargs: Any
) -> Any:
    """Run a model or guide with these parameters; raise if no handler gives one its value."""
    with Supplied(), substitute(data=dict(params or {})):
        return function(*args, **kwargs)


class Supplied(Messenger):
    """Handler that raises if parameters or states of modules are left at their initial values.

    Latent variables replace those of ``random_flax_module`` and the like, which need no value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.missing: dict[str, None] = {}
        self.latents: list[str] = []

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            self.latents.append(msg["name"])
        if msg["type"] != "param" or "fn" not in msg:  # What comes out of a scan has no `fn`.
            return
        name, initial_value = msg["name"], msg["fn"]

        # NumPyro calls it if no handler has given a value, outer ones included.
        def note(*args: Any, **kwargs: Any) -> Any:
            self.missing[name] = None
            return initial_value(*args, **kwargs)

        msg["fn"] = note

    def postprocess_message(self, msg: Any) -> None:
        # Persistent chains are arrays, and no part of the density.
        if msg["type"] == "mutable" and not isinstance(msg["value"], Array):
            if msg["value"] is msg["args"][0]:
                raise _not_supplied([*self.missing, msg["name"]])

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        missing = [name for name in self.missing if not self._is_random(name)]
        if missing and error[0] is None:
            raise _not_supplied(missing)

    def _is_random(self, parameter: str) -> bool:
        module = parameter.removesuffix("$params")
        return any(latent.startswith(f"{module}/") for latent in self.latents)


def copied(value: Any) -> Any:
    """Copy of a site's value, as models write into that of a ``mutable`` site."""
    return jax.tree.map(lambda leaf: leaf, value)


def _not_supplied(names: Iterable[str]) -> ValueError:
    return ValueError(
        f"Expected values of the parameters {list(names)}, got none: they would stay at their "
        "initial values. Write params=svi.get_params(state), or params=svi_result.params; with "
        "mutable states, params=svi.get_params(state) | state.mutable_state."
    )
