"""Evidence: long experiments on either host, and what they found.

Run from ``tests``: ``python -m evidence planes --host pyro --seeds 0 1 2`` appends a line to
``results/planes.jsonl`` for each run that is not there yet, and ``python -m evidence report``
writes ``RESULTS.md`` from all lines. One thread (``OMP_NUM_THREADS=1``) is fastest.
"""
