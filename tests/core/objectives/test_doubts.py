import math

import pytest

from pyro_ebm.core.objectives.doubts import INSPECTED, doubts

SOUND = {
    "energy_gap": 0.3,
    "acceptance_rate": 0.6,
    "clipped": 0.4,
    "effective_values": 5.0,
    "effective_negatives": 5.0,
    "effective_sample_size": 5.0,
    "effective_normalizer_samples": 50.0,
}
BAD = {
    "energy_gap": math.nan,
    "acceptance_rate": 0.05,
    "clipped": 0.6,
    "effective_values": 1.5,
    "effective_negatives": 1.5,
    "effective_sample_size": 1.5,
    "effective_normalizer_samples": 9.0,
}


def test_every_metric_that_is_inspected_is_tested():
    assert INSPECTED == SOUND.keys() == BAD.keys()


def test_sound_metrics_raise_no_doubt():
    assert list(doubts("x", SOUND, 100)) == []
    assert list(doubts("x", {}, 100)) == []


@pytest.mark.parametrize("name", BAD)
def test_message_names_metric_and_site(name):
    (message,) = doubts("z", SOUND | {name: BAD[name]}, 100)
    assert f"`{name}` of site 'z'" in message


def test_few_values_may_have_few_weights():
    few = {name: 1.0 for name, number in BAD.items() if number == 1.5}
    assert list(doubts("x", few, 7)) == []
    assert len(list(doubts("x", few, 8))) == 3
