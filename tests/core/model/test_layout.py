import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.model.layout import PlateLayout

rng = np.random.default_rng(0)

# Plate "data" of 5 at dim -1, or at -2 with features of 3 at dim -1; global latents too.
CASES = {
    "one site": PlateLayout((5,), {"z": (5,)}, {"z": (2,)}),
    "scalars": PlateLayout((5,), {"z": (5,), "w": (5,)}, {"z": (), "w": ()}),
    "inner plate": PlateLayout((5, 1), {"z": (5, 1), "w": (5, 3)}, {"z": (2, 2), "w": (4,)}),
    "outer plate": PlateLayout((1, 5), {"z": (5,), "w": (3, 5)}, {"z": (), "w": (2,)}),
    "global": PlateLayout((1, 1), {"a": (), "z": (4, 3)}, {"a": (2,), "z": ()}),
    "no plates": PlateLayout((), {"a": (), "b": ()}, {"a": (2,), "b": ()}),
}


@pytest.mark.parametrize("chains", [(), (6,), (2, 3)])
@pytest.mark.parametrize("layout", CASES.values(), ids=CASES)
def test_unpack_inverts_pack(layout, chains):
    depth = len(layout.plate_shape)
    values = {}
    for name, batch in layout.batch_shapes.items():
        padded = chains + (1,) * (depth - len(batch)) + batch if chains else batch
        values[name] = rng.normal(size=padded + layout.event_shapes[name])
    position = layout.pack(values)
    size = sum(value.size for value in values.values())
    assert position.shape[:-1] == chains + layout.plate_shape
    assert position.size == size
    for name, value in layout.unpack(position).items():
        np.testing.assert_array_equal(value, values[name])
    strict = layout.pack({name: array_api_strict.asarray(x) for name, x in values.items()})
    np.testing.assert_array_equal(np.asarray(strict), position)


def test_one_element_is_one_vector():
    z, w = rng.normal(size=(5, 1, 2, 2)), rng.normal(size=(5, 3, 4))
    position = CASES["inner plate"].pack({"z": z, "w": w})
    expected = np.concatenate([z[0].ravel(), w[0].ravel()])
    np.testing.assert_array_equal(np.sort(position[0, 0]), np.sort(expected))


def test_totals_keep_the_common_plates():
    layout = CASES["inner plate"]
    log_density = rng.normal(size=(6, 5, 3))
    np.testing.assert_allclose(layout.total(log_density), log_density.sum(-1, keepdims=True))
    np.testing.assert_allclose(layout.total(log_density[0, 0]), log_density[0, 0].sum()[None, None])
    np.testing.assert_allclose(CASES["one site"].total(log_density[..., 0]), log_density[..., 0])
    total = CASES["no plates"].total(log_density[:, 0, 0])
    np.testing.assert_allclose(total, log_density[:, 0, 0])
