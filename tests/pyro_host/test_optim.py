import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroLRScheduler, PyroOptim
from pyro.optim.clipped_adam import ClippedAdam

from pyro_ebm.pyro import AllReduce, step_when

# All with something that changes although the gradient is zero.
OPTIMIZERS = [
    (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (ClippedAdam, {"lr": 0.1, "lrd": 0.9}),
]
NUM_STEPS = 7


def every_third(count):
    return count % 3 == 0


def step(optimizer, parameter, gradient):
    parameter.grad = gradient.clone()
    optimizer.step()


def contents(optimizer):
    """All that the optimizer holds, but the count of steps."""
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.pop("step_count", None)
    return state


@pytest.fixture
def gradients():
    return torch.randn(NUM_STEPS, 3)


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_a_skipped_step_changes_nothing(optimizer, options, gradients):
    parameter = torch.ones(3, requires_grad=True)
    conditional = step_when(optimizer)([parameter], **options, condition=every_third)
    for count, gradient in enumerate(gradients):
        before, state = parameter.detach().clone(), contents(conditional)
        step(conditional, parameter, gradient)
        assert torch.equal(parameter, before) != every_third(count)
        if not every_third(count):
            torch.testing.assert_close(contents(conditional), state, rtol=0, atol=0)


@pytest.mark.parametrize("condition", [None, every_third])
@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_it_is_the_plain_optimizer_otherwise(optimizer, options, condition, gradients):
    ours, theirs = (torch.ones(3, requires_grad=True) for _ in range(2))
    conditional = step_when(optimizer)([ours], **options, condition=condition)
    plain = optimizer([theirs], **options)
    for count, gradient in enumerate(gradients):
        step(conditional, ours, gradient)
        if condition is None or condition(count):
            step(plain, theirs, gradient)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(contents(conditional), contents(plain), rtol=0, atol=0)


def options(name):
    return {"lr": 0.1, **({"condition": every_third} if name == "loc" else {})}


def model(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    log_scale = pyro.param("log_scale", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, log_scale.exp()), obs=x)


def inference(optimizer):
    return SVI(model, lambda x: None, optimizer, Trace_ELBO())


def parameters():
    return [pyro.param(name).detach().clone() for name in ("loc", "log_scale")]


def test_parameters_of_one_svi_have_their_own_conditions(gradients):
    """As two optimizers in a loop by hand, which drops the gradients of skipped steps."""
    x = gradients[0] + 2.0
    svi = inference(PyroOptim(step_when(torch.optim.Adam), options))
    loc, log_scale = (torch.tensor(0.0, requires_grad=True) for _ in range(2))
    slow, fast = (torch.optim.Adam([player], lr=0.1) for player in (loc, log_scale))
    for count in range(NUM_STEPS):
        svi.step(x)
        loss = -dist.Normal(loc, log_scale.exp()).log_prob(x).sum()
        loc.grad, log_scale.grad = torch.autograd.grad(loss, [loc, log_scale])
        fast.step()
        if every_third(count):
            slow.step()
        torch.testing.assert_close(parameters(), [loc.detach(), log_scale.detach()])


def test_saved_training_continues_exactly(gradients, tmp_path):
    x = gradients[0] + 2.0

    def optimizer():
        return PyroOptim(step_when(torch.optim.Adam), options)

    svi = inference(optimizer())
    for _ in range(NUM_STEPS):
        svi.step(x)
    straight = parameters()

    pyro.clear_param_store()
    first, second = optimizer(), optimizer()
    svi = inference(first)
    for _ in range(NUM_STEPS - 3):
        svi.step(x)
    first.save(tmp_path / "optimizer")
    second.load(tmp_path / "optimizer")
    svi = inference(second)
    for _ in range(3):
        svi.step(x)
    assert parameters() == straight


def test_inside_a_learning_rate_scheduler(gradients):
    """The rate follows all steps, skipped ones too."""
    scheduler = PyroLRScheduler(
        torch.optim.lr_scheduler.ExponentialLR,
        {"optimizer": step_when(torch.optim.SGD), "optim_args": options, "gamma": 0.5},
    )
    svi = inference(scheduler)
    for _ in range(3):
        svi.step(gradients[0])
        scheduler.step()
    before = parameters()[0]
    by_hand = before.clone().requires_grad_()
    loss = -dist.Normal(by_hand, parameters()[1].exp()).log_prob(gradients[0]).sum()
    (gradient,) = torch.autograd.grad(loss, by_hand)
    svi.step(gradients[0])
    torch.testing.assert_close(parameters()[0] - before, -0.1 * 0.5**3 * gradient)


def pickled(optimizer):
    return pickle.loads(pickle.dumps(optimizer))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_copies_continue_as_the_original(duplicate, gradients):
    def train(optimizer, gradients):
        (parameter,) = optimizer.param_groups[0]["params"]
        for gradient in gradients:
            step(optimizer, parameter, gradient)
        return parameter

    start = torch.ones(3, requires_grad=True)
    original = step_when(torch.optim.Adam)([start], condition=every_third)
    train(original, gradients[:2])
    other = duplicate(original)
    ours, theirs = (train(optimizer, gradients[2:]) for optimizer in (other, original))
    assert type(other) is type(original)
    assert ours is not theirs
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(other.state_dict(), original.state_dict(), rtol=0, atol=0)


def test_a_state_without_a_count_starts_at_zero():
    parameter = torch.ones(3, requires_grad=True)
    plain = torch.optim.SGD([parameter], lr=0.5)
    step(plain, parameter, torch.ones(3))
    conditional = step_when(torch.optim.SGD)([parameter], lr=0.1, condition=every_third)
    conditional.load_state_dict(plain.state_dict())
    for _ in range(2):
        step(conditional, parameter, torch.ones(3))
    assert torch.equal(parameter, torch.zeros(3))


def test_a_skipped_step_returns_the_loss_of_a_closure():
    optimizer = step_when(torch.optim.SGD)([torch.ones(3, requires_grad=True)], condition=bool)
    assert [optimizer.step(lambda: 0.5) for _ in range(2)] == [0.5, 0.5]


def test_a_conditional_optimizer_is_not_wrapped_again():
    conditional = step_when(torch.optim.Adam)
    assert step_when(conditional) is conditional


@pytest.mark.parametrize(
    "optimizer", [pyro.optim.Adam, pyro.optim.Adam({}), torch.nn.Linear, "Adam"]
)
def test_other_optimizers_are_refused(optimizer):
    with pytest.raises(TypeError, match=r"a subclass of torch.optim.Optimizer, .* got"):
        step_when(optimizer)


def test_conditions_are_functions():
    with pytest.raises(TypeError, match="`condition` to be callable, got int"):
        step_when(torch.optim.Adam)([torch.ones(3, requires_grad=True)], condition=5)


# --- several processes; tests/pyro_host/infer/test_processes.py has more than one ---


def test_one_process_trains_as_by_the_optimizer_itself():
    def train(wrap):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        scheduler = pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.5}
        )
        optimizer = wrap(scheduler)
        svi = SVI(model, guide, optimizer, Trace_ELBO())
        for _ in range(3):
            svi.step()
            scheduler.step()
        return pyro.param("loc").item(), optimizer.get_state()

    def model():
        pyro.sample("z", dist.Normal(3.0, 1.0))

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    (plain, state), (wrapped, same) = train(lambda optimizer: optimizer), train(AllReduce)
    assert plain == wrapped != 0.0
    assert state["loc"]["scheduler"]["last_epoch"] == same["loc"]["scheduler"]["last_epoch"] == 3
    torch.testing.assert_close(state["loc"]["optimizer"], same["loc"]["optimizer"])


def test_the_state_is_that_of_the_wrapped_optimizer():
    inner, param = pyro.optim.Adam({"lr": 0.1}), pyro.param("x", torch.tensor(1.0))
    outer = AllReduce(inner)
    param.grad = torch.tensor(1.0)
    outer([param])
    assert inner.get_state()["x"]["state"][0]["step"] == 1
    other = pyro.optim.Adam({"lr": 0.1})
    AllReduce(other).set_state(outer.get_state())
    other([param])
    assert other.get_state()["x"]["state"][0]["step"] == 2


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, pyro.optim.Adam, "Adam"])
def test_only_optimizers_of_pyro_average(optimizer):
    with pytest.raises(TypeError, match="to be an optimizer of Pyro, .* got"):
        AllReduce(optimizer)


def test_parameters_without_a_name_are_refused():
    with pytest.raises(ValueError, match="modules that keep their own .* DistributedData"):
        AllReduce(pyro.optim.Adam({}))._averaged([torch.ones(1, requires_grad=True)])
