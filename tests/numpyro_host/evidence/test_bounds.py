from helpers.compilations import counted_compilations
from helpers.evidence.bounds import *  # noqa: F403
from helpers.evidence.bounds import report_of_encoders


def test_new_parameters_compile_nothing_again(host):
    report = report_of_encoders(host)
    report(1.0, 1.0)
    with counted_compilations() as compiled:
        report(0.95, 1.2)
    assert not compiled
