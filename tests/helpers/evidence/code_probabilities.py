"""Probabilities of a column against the law that they come from."""

import numpy as np
import pytest

rng = np.random.default_rng(0)
TABLE = rng.normal(size=(3, 4))


def table(host):
    columns = [host.ebm.Column.numeric("size"), host.ebm.Column.nominal(3, "label")]
    columns += [host.ebm.Column.cyclic(4)]
    log_probs = np.log([[0.25] * 4, [0.2, 0.3, 0.5, 1e-300], [0.25] * 4])
    base = host.ebm.ColumnMarginals(columns, [0.0] * 3, [1.0] * 3, log_probs)
    weights = host.array(TABLE)

    def energy(x):
        return (1 + x[:, 0] ** 2) * weights[host.whole(x[:, 1]), host.whole(x[:, 2])]

    return host.ebm.EnergyBased(energy, base)


@pytest.mark.parametrize("column", [1, -2, "label"])
def test_classifier(host, column):
    value = host.array([[[0.5, 9.0, 1.0]], [[1.0, 0.0, 3.0]]])
    found = np.asarray(host.ebm.code_probabilities(table(host), value, column))
    assert found.shape == (2, 1, 3)
    for row, (number, code) in enumerate([(0.5, 1), (1.0, 3)]):
        density = np.exp(-(1 + number**2) * TABLE[:, code]) * [0.2, 0.3, 0.5]
        np.testing.assert_allclose(found[row, 0], density / density.sum(), rtol=1e-4)


@pytest.mark.once
def test_bits_of_an_image(host):
    base = host.dist.Bernoulli(host.array(np.full((2, 2), 0.5))).to_event(2)
    model = host.ebm.EnergyBased(lambda x: -2.0 * x[:, 1, 0], base)
    found = np.asarray(host.ebm.code_probabilities(model, host.array(np.zeros((5, 2, 2))), 2))
    np.testing.assert_allclose(found, np.broadcast_to([0.11920, 0.88080], (5, 2)), atol=1e-4)


@pytest.mark.parametrize("contexts", [[0.0, 1.0, 2.0], [0.5, 1.0]])
def test_one_value_in_all_contexts(host, contexts):
    base = host.dist.Categorical(host.array(np.full((2, 3), 1 / 3))).to_event(1)
    model = host.ebm.EnergyBased(
        lambda x, c: -c[:, 0] * x[:, 0] * x[:, 1], base, context=host.array(contexts)[:, None]
    )
    found = np.asarray(host.ebm.code_probabilities(model, host.array([1.0, 2.0]), 0))
    expected = np.exp(2 * np.outer(contexts, range(3)))
    np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (0, "got 0, numeric"),
        ("size", "got 'size', numeric"),
        (3, "got 3 of 3 columns"),
        (-4, "`column` to be an integer of at least -3"),
        ("colour", r"one column out of \['size', 'label', ''\], got 'colour'"),
        ("", "got ''"),
    ],
)
def test_no_such_column(host, column, message):
    with pytest.raises(ValueError, match=message):
        host.ebm.code_probabilities(table(host), host.array([0.0, 0.0, 0.0]), column)


def test_no_codes(host):
    normal = host.ebm.EnergyBased(lambda x: 0 * x, host.dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="columns of codes, got a continuous support"):
        host.ebm.code_probabilities(normal, host.array(0.0), 0)
    with pytest.raises(TypeError, match="EnergyBased distribution, got Normal"):
        host.ebm.code_probabilities(host.dist.Normal(0.0, 1.0), host.array(0.0), 0)
