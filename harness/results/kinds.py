"""The kinds of failure: one closed list of slugs, each with a sentence for people."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What went wrong, as a slug: the closed list of `Finding.kind` and `Record.kind`.

    Reports group by it, and known failures name it; `description` is a sentence for people.
    A finding that fails in several ways keeps the kind of the first.
    """

    description: str

    def __new__(cls, slug: str, description: str = "") -> Kind:
        member = str.__new__(cls, slug)
        member._value_ = slug
        member.description = description
        return member

    # Visible keys.
    SEES_TOO_MANY = "sees-too-many", "Queries see earlier keys that the law hides from them."
    LOST_KEYS = "lost-keys", "Queries do not see keys that the law shows them."
    SEES_THE_FUTURE = "sees-the-future", "Queries see keys of later positions."
    WRONG_KEYS = (
        "wrong-keys",
        "Visible sets are wrong in several ways: keys are lost, too many or from the future.",
    )
    NOT_UNIFORM = (
        "not-uniform",
        "The right keys are visible, but with equal scores they do not get equal weights: one "
        "counts twice, or something is added to its score.",
    )

    # Values.
    WRONG_VALUES = "wrong-values", "Rows of the answer are off by more than the bound."
    NOT_A_NUMBER = "not-a-number", "The answer holds NaN or an infinity."
    BLIND = (
        "blind",
        "The bound would let a neighbouring law pass, so the case proves nothing.",
    )
    DENSE_WRONG = (
        "dense-wrong",
        "The subject's dense run, which the bound is derived from, is further from float64 than "
        "rounding explains.",
    )

    # Bytes.
    BYTES_CLAIMED_DIFFER = (
        "bytes-claimed-differ",
        "The bytes that a cache or decoder reports are not the bytes that it holds.",
    )
    BYTES_LEAKED = "bytes-leaked", "Memory stays allocated that cannot be reached from the cache."
    BYTES_TOO_FEW = (
        "bytes-too-few",
        "A cache is too small for the keys and values that its next query needs.",
    )
    BYTES_TOO_MANY = (
        "bytes-too-many",
        "The cache of a bounded layer holds more than twice what the window and the sink need.",
    )
    BYTES_GROW = "bytes-grow", "The cache of a bounded layer still grows while it decodes."
    BYTES_DIFFER = "bytes-differ", "The bytes held in the steady state differ from the profile."
    STORED_TOO_WIDE = (
        "stored-too-wide",
        "Keys or values are stored in a wider number format than the case's.",
    )
    NOT_STEADY = (
        "not-steady",
        "After the first wrap, peak or held bytes still change between decode steps.",
    )
    NOT_LINEAR = (
        "not-linear",
        "An operation claims memory linear in the length, but its peaks do not grow linearly.",
    )

    # State and refusals.
    NOTHING_TO_COMPARE = (
        "nothing-to-compare",
        "Answers do not depend on what was fed before, so that equal answers of two runs say "
        "nothing.",
    )
    REFUSES_WHAT_IT_HOLDS = (
        "refuses-what-it-holds",
        "A rewind was refused, though every key and value that the next query needs is held.",
    )
    RESET_DIFFERS = "reset-differs", "After a reset the answers are not those of a fresh cache."
    STATE_CHANGED = "state-changed", "A call that was refused changed later answers."
    BAD_INPUT_ACCEPTED = "bad-input-accepted", "Bad input was accepted without an error."
    ACCEPTED_AND_WRONG = (
        "accepted-and-wrong",
        "Input beyond the announced limits was accepted, but its answers are wrong.",
    )
    ERROR_WITHOUT_MESSAGE = (
        "error-without-message",
        "Bad input was refused with an error that has no message.",
    )

    # Purity.
    INPUT_CHANGED = "input-changed", "The caller's tensors were modified in place."
    INPUT_KEPT = (
        "input-kept",
        "The caller's tensors are kept without a copy: overwriting them changes later answers.",
    )
    NOT_REPEATABLE = "not-repeatable", "Two equal runs gave different bits."
    INSTANCES_MIX = (
        "instances-mix",
        "A second decoder, open at the same time, changed the answers of the first.",
    )
    ROWS_MIX = "rows-mix", "Input in one row of a batch changed the answers in other rows."

    # No answer, or an answer that cannot be judged.
    CONTRACT_BROKEN = (
        "contract-broken",
        "The subject's answer does not have the type, shape or dtype that the contract asks for.",
    )
    RAISED = "raised", "The subject or the harness raised an exception."
    OUT_OF_MEMORY = "out-of-memory", "The machine ran out of memory."
    HUNG = "hung", "The check gave no answer within its time limit."
    DIED = "died", "The process died while the check ran, or before it began."
    NOT_LOADED = "not-loaded", "The subject cannot be loaded, or plans no check."
    MISSING = "missing", "The check was collected, but no record of it came back."
