"""Results of experiments and the page that is generated from them."""

import json

import pytest
from evidence import __main__ as command
from evidence import experiments, records

KEYS = {"experiment", "host", "settings", "figures", "commit", "versions"}


def record(figures, **others):
    return {"figures": figures, "settings": {}, **others}


def test_page_is_up_to_date():
    assert records.PAGE.read_text(encoding="utf-8") == records.page(), "python -m evidence report"


@pytest.mark.parametrize("name", experiments.NAMES)
def test_recorded_runs_are_cells(name):
    experiment = experiments.load(name)
    cells = experiment.CELLS + getattr(experiment, "OPTIONAL", [])
    for row in records.read(name):
        assert row.keys() >= KEYS
        assert row["experiment"] == name
        assert row["host"] in records.HOSTS
        assert row["settings"] in cells
        assert ("seed" in row) != ("seeds" in row)
        assert "seed" in row or records.is_carried_over(row)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([0.5], "0.500"),
        ([0.0, 1.0, 2.0], "1.000 (0.577)"),
        ([[0.5, 0.1], [1.5, 0.2]], "0.500 (0.100); 1.500 (0.200)"),
        ([-2067.3], "-2067"),
        ([0.00012], "0.00012"),
    ],
)
def test_figures_are_shown_with_standard_errors(values, text):
    assert records.show([record({"mse": value}) for value in values], "mse") == text


def test_runs_replace_figures_that_are_carried_over():
    old = record({"mse": [0.3, 0.1]}, source="carried over")
    assert records.show([old], "mse") == "0.300 (0.100) †"
    assert records.show([old, record({"mse": 0.2})], "mse") == "0.200"


def test_a_run_is_recorded_once(tmp_path, monkeypatch):
    class Host:
        NAME, PACKAGES = "pyro", ("pytest",)

    def run(host, seed, *, target):
        return {"estimate": seed, "lower": -1.0, "upper": 1.0}

    monkeypatch.setattr(records, "path", lambda experiment: tmp_path / experiment)
    monkeypatch.setattr(command.hosts, "load", lambda name: Host)
    brackets = experiments.load("brackets")
    monkeypatch.setattr(brackets, "CELLS", [{"target": "quartic"}, {"target": "mixture"}])
    monkeypatch.setattr(brackets, "run", run)
    for _ in range(2):
        command.main(["brackets", "--seeds", "3", "4", "--only", "target=mixture"])
    rows = [json.loads(line) for line in (tmp_path / "brackets").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [3, 4]
    assert all(row["settings"] == {"target": "mixture"} for row in rows)
    assert rows[0]["versions"].keys() == {"pyro-ebm", "numpy", "pytest"}
    assert rows[0]["commit"]
