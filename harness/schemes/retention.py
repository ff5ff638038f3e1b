"""Which past positions a bounded store still holds: bookkeeping in plain integers.

The schemes differ in where they put a key.  Whether a key is gone, and whether a rewind would need
it, is the same question for all of them.
"""

from __future__ import annotations

from harness.law import Layer
from harness.schemes.validation import check_rewind


def needs_from(layer: Layer, q: int) -> int:
    """The first position after the sink that the query at q sees; it sees all from there to q."""
    first = 0
    if layer.window is not None:
        first = max(layer.sink, q - layer.window + 1)
    if layer.chunk is not None:
        first = max(first, q - q % layer.chunk)
    return first


def span(layer: Layer) -> int | None:
    """The most past keys after the sink that a query needs; None if it needs all of them."""
    turns = [turn - 1 for turn in (layer.window, layer.chunk) if turn is not None]
    return min(turns) if turns else None


class Held:
    """The positions held after the sink: `oldest` … `length` - 1, at most `capacity` of them.

    A store at least as long as the layer's span rolls: it keeps the newest positions, and
    generation can go on for ever.  A shorter one (full attention, or a window longer than the
    context) can only answer queries up to its capacity.  It keeps the first positions, so that it
    never drops a key that a query could still need.
    """

    def __init__(self, layer: Layer, capacity: int) -> None:
        self.layer, self.capacity = layer, capacity
        needed = span(layer)
        self.rolls = needed is not None and capacity >= needed
        self.reset()

    def reset(self) -> None:
        self.length = 0
        self.oldest = self.layer.sink

    @property
    def last_start(self) -> int | None:
        """The last position at which a chunk may start; None if there is no limit."""
        return None if self.rolls else self.layer.sink + self.capacity

    def advance(self, n: int) -> None:
        """Record that n more positions have been written."""
        self.length += n
        if self.rolls:
            self.drop_before(self.length - self.capacity)

    def drop_before(self, position: int) -> None:
        """Record that the positions between the sink and `position` are gone."""
        self.oldest = max(self.oldest, position)

    def check_rewind(self, target: int) -> None:
        """Raise ValueError unless every key that a query at `target` needs is still held."""
        check_rewind(target, self.length)
        needed = needs_from(self.layer, target)
        if needed < min(target, self.oldest):
            raise ValueError(
                f"rewind length {target} needs the key at position {needed}, which has been "
                f"overwritten: {self.capacity} slots hold {self.oldest} … {self.length - 1}; "
                f"rewind less far, or reset"
            )

    def rewind(self, target: int) -> None:
        """Forget the positions from `target` on; raises as `check_rewind` does."""
        self.check_rewind(target)
        if target == self.length:
            return
        self.length = target
        self.oldest = min(self.oldest, max(self.layer.sink, target))
