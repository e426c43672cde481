"""Checkpoints: exact resume, and files that are refused before anything changes."""

import numpy as np
import pytest

from helpers import hostile_files, killed_runs
from helpers.stateful_runs import with_posterior_draws

KINDS = hostile_files.KINDS
X = np.linspace(-2, 2, 8).reshape(4, 2)


def test_training_goes_on_to_the_last_bit(host, tmp_path):
    """Chains, stored positions, moments, a schedule and random numbers, in a run started anew."""
    run = started(host)
    for _ in range(3):
        run.step(X)
    run.save(tmp_path / "run", step=3)
    expected = [run.step(X) for _ in range(2)], numbers(run)
    resumed = started(host)
    assert resumed.load(tmp_path / "run", X) == 3
    before = numbers(resumed)
    assert all((one != two).any() for one, two in zip(before, expected[1], strict=True))
    assert [resumed.step(X) for _ in range(2)] == expected[0]
    for one, two in zip(numbers(resumed), expected[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert resumed.is_compiled_once


def started(host):
    host.start_again()
    return with_posterior_draws(host)


def numbers(run):
    return [run.param("energy.weight"), run.chains("z$chains"), run.chains("z$positions")]


def test_chains_go_on_to_the_last_bit(host, tmp_path):
    sampler = host.ebm.ReplicaExchange(
        host.ebm.MALA(0.3, adapt_mass_matrix=True), temperatures=(2.0, 1.0)
    )
    options = {"num_samples": 4, "num_warmup": 4, "num_chains": 3, "check": False}
    first, other = (
        host.run_chains(sampler, host.normal(), **options, seed=seed) for seed in (0, 1)
    )
    saved = {"sampler": sampler, "chains": first.state}
    host.ebm.save_checkpoint(tmp_path / "run", saved)
    like = {"sampler": sampler, "chains": other.state}
    loaded = host.ebm.load_checkpoint(tmp_path / "run", like)
    assert loaded["sampler"] == sampler
    assert type(loaded["chains"]) is type(first.state)
    options |= {"num_warmup": 0, "num_chains": None, "seed": 2}
    one, two = (
        host.run_chains(sampler, host.normal(), init=state["chains"], **options).samples
        for state in (saved, loaded)
    )
    np.testing.assert_array_equal(host.to_numpy(one), host.to_numpy(two))


# --- what a state may have ---


def a_state(host, fill=1, **others):
    """A small state with every kind of leaf; another one for another number."""
    array = host.array
    return {
        "a": array(np.arange(6.0).reshape(2, 3) * fill),
        "n": (array(0.1 * fill), [array(np.zeros((0, 3))), array(np.arange(3) > fill)]),
        "numpy": np.arange(3, dtype=np.int16) + fill,
        "number": np.float64(fill),
        "sampler": host.ebm.Langevin(0.1 * fill, temperature=2.0),
        "step": fill,
        "rate": 0.1 * fill,
        "best": float("inf"),
        "phase": f"phase {fill}",
        "done": fill > 1,
        **others,
    }


def assert_same(host, one, two):
    assert one.keys() == two.keys()
    for name in ("step", "rate", "best", "phase", "done", "sampler"):
        assert (type(one[name]), one[name]) == (type(two[name]), two[name])
    arrays = [(s["a"], s["n"][0], *s["n"][1], s["numpy"], s["number"]) for s in (one, two)]
    for x, y in zip(*arrays, strict=True):
        assert (type(x), x.shape, x.dtype) == (type(y), y.shape, y.dtype)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_every_kind_of_leaf(host, tmp_path):
    host.ebm.save_checkpoint(tmp_path / "run", a_state(host))
    found = host.ebm.load_checkpoint(tmp_path / "run", a_state(host, 2))
    assert_same(host, found, a_state(host))


def test_the_old_file_stays_if_the_new_one_fails(host, tmp_path):
    path = tmp_path / "run"
    host.ebm.save_checkpoint(path, a_state(host))
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"got function at state\['f'\]"):
        host.ebm.save_checkpoint(path, {"f": lambda x: x})
    with pytest.raises(TypeError, match=r"got complex128 at state\['z'\]"):
        host.ebm.save_checkpoint(path, {"z": np.zeros(3, complex)})
    with pytest.raises(FileNotFoundError):
        host.ebm.save_checkpoint(tmp_path / "none" / "run", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        host.ebm.save_checkpoint(tmp_path / "folder", {})
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"run", "folder"}


def test_a_link_stays_a_link(host, tmp_path):
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    host.ebm.save_checkpoint(str(tmp_path / "latest"), a_state(host))
    assert (tmp_path / "latest").is_symlink()
    assert_same(host, host.ebm.load_checkpoint(tmp_path / "run", a_state(host, 2)), a_state(host))


def test_the_same_state_makes_the_same_file(host, tmp_path):
    """In any order: an optimizer of Pyro has its parameters in another one in each process."""
    state = a_state(host)
    host.ebm.save_checkpoint(tmp_path / "one", state)
    host.ebm.save_checkpoint(tmp_path / "two", dict(reversed(state.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# --- files that are refused ---


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_and_broken_files_are_refused(host, tmp_path, kind, monkeypatch):
    """With a clear error; nothing runs, and nothing changes."""
    monkeypatch.chdir(tmp_path)
    path, like = tmp_path / "run", a_state(host, 2)
    host.ebm.save_checkpoint(path, a_state(host))
    make, match = KINDS[kind]
    path.write_bytes(make(hostile_files.Parts.of(path.read_bytes())))
    before = host.global_state()
    with pytest.raises(ValueError, match=match) as caught:
        host.ebm.load_checkpoint(path, like)
    assert len(str(caught.value)) < 1000
    assert host.global_state() == before
    assert_same(host, like, a_state(host, 2))
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_another_model_is_refused(host, tmp_path):
    """A saved state with other leaves, of another shape, or of other numbers."""
    cases = {
        r"Expected state\['b'\] in .*, got none": {"b": host.array(1.0)},
        r"Expected state\['a'\] to be an array of shape \(7,\)": {"a": host.array(np.ones(7))},
        r"Expected state\['a'\] to be a number, got an array": {"a": 1.0},
        r"Expected state\['numpy'\] to be an array of .*int32, got .*int16": {
            "numpy": np.zeros(3, np.int32)
        },
    }
    host.ebm.save_checkpoint(tmp_path / "run", a_state(host))
    for match, others in cases.items():
        with pytest.raises(ValueError, match=match):
            host.ebm.load_checkpoint(tmp_path / "run", a_state(host, 2, **others))
    like = a_state(host, 2)
    del like["a"]
    with pytest.raises(ValueError, match=r"does not have, got state\['a'\]"):
        host.ebm.load_checkpoint(tmp_path / "run", like)
    with pytest.raises(FileNotFoundError):
        host.ebm.load_checkpoint(tmp_path / "other", like)


def test_versions_are_on_record(host, tmp_path):
    host.start_again()
    host.ebm.save_checkpoint(tmp_path / "run", {})
    header = hostile_files.Parts.of((tmp_path / "run").read_bytes()).ours
    assert header["format"] == 1
    assert header["versions"].keys() > {"pyro_ebm", header["host"]}


# --- runs that are killed ---


def test_a_killed_run_goes_on_to_the_last_bit(host, tmp_path):
    report = killed_runs.compare(host.HOST.lower(), "contrastive", tmp_path, num_kills=2)
    assert report.num_kills == 2
    assert report.is_same
