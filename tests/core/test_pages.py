"""The runner of the code on documentation pages."""

import pytest
from helpers import pages

PAGE = """
```python
steps, found = 5_000, []
```

::::{{tab-set}}
:::{{tab-item}} Pyro
```python
found.append("pyro")
```
:::
:::{{tab-item}} NumPyro
```python
found.append("numpyro")
int("x")  # ValueError: {words}
```
:::
::::

```
not Python
```
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "DOCS", tmp_path)

    def write(words):
        (tmp_path / "page.md").write_text(PAGE.format(words=words))
        return "page.md"

    return write


def test_each_host_runs_its_tabs(page):
    page("invalid literal ...")
    assert pages.pages() == ["page.md"]
    names = pages.run("page.md", "pyro")
    assert (names["steps"], names["found"]) == (2, ["pyro"])
    assert pages.run("page.md", "numpyro", shorten=False)["steps"] == 5000


def test_errors_must_come_with_their_words(page):
    with pytest.raises(AssertionError, match="Regex pattern did not match"):
        pages.run(page("other words"), "numpyro")
