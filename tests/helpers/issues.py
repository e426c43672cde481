"""What `check_model` should find, for both hosts."""

WORDS = {
    "doubly_intractable": (
        "latent variable",
        "silently wrong",
        "Give `log_normalizer`",
        "Joint(",
        ".conditional(",
    ),
    "mixture": ("`log_normalizer`",),
    "guide": ("of the guide", "Use it in the model"),
    "unregistered": ("No optimizer will update", "if they are meant to stay as they are, say so"),
}


def is_only(issues, site, kind, *words):
    """Whether there is one issue, of this kind, with words of its kind and these in its message."""
    (issue,) = issues
    missing = [word for word in (*WORDS[kind], *words) if word not in str(issue)]
    return (issue.site, issue.kind, missing) == (site, kind, [])
