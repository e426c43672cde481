from helpers import tutorials


def test_twins_have_the_same_cells():
    for host, twin in (("pyro", "numpyro"), ("numpyro", "pyro")):
        for tutorial in tutorials.of_host(host):
            other = tutorial.with_name(tutorial.name.replace(f"_{host}.py", f"_{twin}.py"))
            assert tutorials.outline(tutorial) == tutorials.outline(other), tutorial.stem
