"""Real tables: preparation to the last random number, and their files."""

import os
from pathlib import Path

import numpy as np
import pytest
from evidence.tables import parkinsons, red_wine
from helpers.real_data import needs_tables


def normal_surprise(table):
    """Mean -log p of the rows for testing under the normal that fits those for training best."""
    mean, covariance = table.train.mean(axis=0), np.cov(table.train.T, bias=True)
    off = table.test - mean
    squares = np.sum(off * np.linalg.solve(covariance, off.T).T, axis=1)
    _, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
    return 0.5 * (squares.mean() + log_determinant)


@needs_tables
@pytest.mark.parametrize(
    ("load", "sizes", "published"),
    [
        (red_wine, (1296, 144, 159, 11), (17.1028, 15.0146, 15.4631, 16.2591, 15.7290)),
        (parkinsons, (4760, 528, 587, 15), (22.3629, 21.3738, 20.8323, 22.5138, 20.6348)),
    ],
)
def test_tables_are_prepared_to_the_last_random_number(load, sizes, published):
    *lengths, dimension = sizes
    tables = [load(seed) for seed in range(5)]
    assert [part.shape for part in tables[0]] == [(length, dimension) for length in lengths]
    np.testing.assert_allclose([normal_surprise(table) for table in tables], published, atol=1e-4)
    np.testing.assert_array_equal(load().test, tables[1].test)


@needs_tables
@pytest.mark.parametrize("load", [red_wine, parkinsons])
def test_tables_are_white_and_their_parts_share_no_row(load):
    rows = np.concatenate(load())
    assert rows.dtype == np.float64
    assert len(np.unique(rows, axis=0)) == len(rows)
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(rows.shape[1]), atol=1e-9)


@needs_tables
def test_parkinsons_leaves_out_columns_that_repeat_another():
    """What is kept is linear in the whitened rows, exactly; what is left out is not."""
    path = Path(os.environ["PYRO_EBM_DATA"]) / "parkinsons_updrs.data"
    names = path.read_text().split("\n", 1)[0].split(",")
    raw = np.loadtxt(path, delimiter=",", skiprows=1)
    np.random.RandomState(1).shuffle(raw)
    raw = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    white = np.concatenate(parkinsons(seed=1))
    errors = np.abs(raw - white @ (white.T @ raw) / len(white)).max(axis=0)
    left_out = {name for name, error in zip(names, errors, strict=True) if error > 1e-9}
    repeated = {"Jitter(%)", "Jitter:RAP", "Shimmer", "Shimmer:APQ3"}
    assert left_out == {"subject#", "age", "sex"} | repeated


@needs_tables
def test_tables_are_read_as_the_repository_has_them(tmp_path, monkeypatch):
    """Semicolons in the one, commas in the other."""
    original = red_wine().test
    text = (Path(os.environ["PYRO_EBM_DATA"]) / "winequality-red.csv").read_text()
    header, body = text.removeprefix("# ").split("\n", 1)
    lines = header.replace('" "', '";"') + "\n" + body.replace(" ", ";")
    (tmp_path / "winequality-red.csv").write_text(lines)
    monkeypatch.setenv("PYRO_EBM_DATA", str(tmp_path))
    np.testing.assert_array_equal(red_wine().test, original)


def test_missing_tables_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("PYRO_EBM_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="unset.*'Wine Quality'.*10.24432/C56S3T"):
        red_wine()
    monkeypatch.setenv("PYRO_EBM_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file.*'Parkinsons Telemonitoring'"):
        parkinsons()
    (tmp_path / "winequality-red.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"a table of \(1599, 12\), got \(2, 2\)"):
        red_wine()
