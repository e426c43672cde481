"""Count of what JAX compiles."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_events: list[str] = []

jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **kwargs: _events.append(event)
)


@contextmanager
def counted_compilations() -> Iterator[list[str]]:
    """Give a list with an entry for each compilation inside, once that is left."""
    found: list[str] = []
    start = len(_events)
    yield found
    found += [event for event in _events[start:] if event == _EVENT]
