from types import SimpleNamespace

import numpy as np

from pyro_ebm.core.distributions.context import with_counted_context


def test_context_of_rows_that_do_not_count():
    """A context of the last batch dimension counts where a row with it does."""
    context = np.array([[1.0], [2.0], [np.nan]])
    given = SimpleNamespace(
        context=context, context_batch_ndims=1, _map_context=lambda function, x: function(x)
    )
    is_counted = np.array([[False, False, False], [False, True, False]])
    found = with_counted_context(given, is_counted).context
    np.testing.assert_array_equal(found, [[2.0], [2.0], [2.0]])
    is_counted[0, 0] = True
    found = with_counted_context(given, is_counted).context
    np.testing.assert_array_equal(found, [[1.0], [2.0], [1.0]])
