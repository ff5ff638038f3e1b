"""Subjects as a user would write them, good and bad, for the tests of plugin and command line."""

#: A suite file, for a project that pytester makes.
SUITE = """
import pytest


@pytest.mark.conformance(schemes={"uniform", "full"})
def test_suite(conformance):
    conformance()
"""


def lay_out(pytester, **files):
    """A folder with one suite, a file of known failures to come, and files of subjects."""
    pytester.makeini("[pytest]\nharness_suites = suites\ntestpaths = suites\n")
    pytester.makepyfile(**files)
    (pytester.path / "suites" / "known_failures").mkdir(parents=True)
    (pytester.path / "suites" / "test_suite.py").write_text(SUITE)
    return pytester


#: A cache of few lines that sees what it should; it keeps everything, so its bytes are wrong.
GOOD = """
import torch


class Cache:
    def __init__(self, layer, shape):
        self.layer, self.shape = layer, shape
        self.reset()

    def reset(self):
        s = self.shape
        self.k = torch.zeros(s.batch, s.n_kv_heads, 0, s.head_dim, dtype=s.dtype)
        self.v = self.k.clone()

    def nbytes(self):
        return self.k.untyped_storage().nbytes() + self.v.untyped_storage().nbytes()

    def update(self, k, v):
        start = self.k.shape[2]
        self.k, self.v = torch.cat([self.k, k], 2), torch.cat([self.v, v], 2)
        q = torch.arange(start, self.k.shape[2])[:, None]
        keys = torch.arange(self.k.shape[2])
        return self.k.clone(), self.v.clone(), (keys <= q) & (q - keys < self.layer.window)


class Mine:
    name = "mine"
    schemes = frozenset({"uniform"})

    def new_cache(self, layer, shape):
        return Cache(layer, shape)
"""

#: What goes wrong when a cache of `max_context` tokens is made; W is 8 in the models used here.
BAD = (
    GOOD
    + '''

import os
import signal
import sys
import time

from harness.contract import Unsupported


class Narrow(Mine):
    name = "narrow"

    def new_cache(self, layer, shape):
        from harness.law import Layer

        return Cache(Layer(window=max(1, layer.window - 1)), shape)


class Misbehaving(Mine):
    def new_cache(self, layer, shape):
        if shape.max_context == self.at:
            self.act()
        return super().new_cache(layer, shape)


class Raises(Misbehaving):
    name, at = "raises", 7

    def act(self):
        raise RuntimeError("no cache today")


class Killed(Misbehaving):
    name, at = "killed", 8

    def act(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Dies(Mine):
    name = "dies"

    def new_cache(self, layer, shape):
        os.kill(os.getpid(), signal.SIGKILL)


class Leaves(Misbehaving):
    name, at = "leaves", 8

    def act(self):
        print("farewell")
        os._exit(3)


class Quits(Misbehaving):
    name, at = "quits", 8

    def act(self):
        sys.exit(0)


class Hangs(Misbehaving):
    name, at = "hangs", 8

    def act(self):
        time.sleep(600)


class Stuck(Misbehaving):
    """Beyond the reach of an exception: signals are swallowed."""

    name, at = "stuck", 8

    def act(self):
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass


class Refuses(Misbehaving):
    name, at = "refuses", 8

    def act(self):
        raise Unsupported("not with 8 positions")


class Shapes(Mine):
    name = "shapes"

    def new_cache(self, layer, shape):
        cache = super().new_cache(layer, shape)
        update = cache.update
        cache.update = lambda k, v: tuple(t[..., :3] for t in update(k, v))
        return cache


class NoMethods:
    name = "empty"
    schemes = frozenset({"uniform"})


class NoScheme:
    name = "unfiled"

    def new_cache(self, layer, shape):
        return None


class WrongScheme(Mine):
    schemes = frozenset({"unform"})


class Nowhere(Mine):
    name = "nowhere"

    @staticmethod
    def covers(check, case):
        return False


class Uncovered(Mine):
    name = "uncovered"

    @staticmethod
    def covers(check, case):
        raise LookupError("no table of cases")


class NeedsArguments(Mine):
    def __init__(self, size):
        self.size = size


class BrokenConstructor(Mine):
    def __init__(self):
        raise KeyError("weights")


def function():
    return None
'''
)
