"""attention-harness: the conformance suite for windowed attention and its KV caches.

`harness.contract` is what an implementation provides; `harness.law` says which keys a query may
see.  The `harness` command and `pytest suites/` run the checks.
"""

__version__ = "0.1.0"
