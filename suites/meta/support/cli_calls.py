"""What the tests of the command share."""

import re

ONE = ("--case", "mistral/prefill-w/float32/b1")
#: Seconds after which a check counts as hung: checks that end take a twentieth of that.
SOON = "6"


def one_line(err):
    """The one line of an error message on stderr; fails for more lines."""
    # On a slow machine a line of progress may come first; it is not part of the message.
    progress = r"\S+: \d+/\d+(, about \d+ s left)?"
    lines = [x for x in err.strip().splitlines() if not re.fullmatch(progress, x)]
    err = "\n".join(lines)
    assert len(lines) == 1
    assert err.startswith("harness: ")
    return err
