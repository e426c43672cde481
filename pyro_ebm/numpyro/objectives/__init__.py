"""One file an objective, named as in the core: draw, differentiate, call the formula."""
