"""In which order the consoles of a queue are rung. Pure; times are seconds of any one clock.

``all`` rings every console at once. ``round_robin`` rings one after the other, beginning after the
one that was rung first last time. ``least_recent`` begins with the one whose last call is longest
ago. Consoles that are in a call are left out as long as a free one is there: a phone that can take
a second call says so itself, by not answering 486.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from controlone_ha.core.admission import Strategy


def rounds(
    strategy: Strategy,
    consoles: Collection[str],
    *,
    busy: Collection[str] = (),
    last_first: str = "",
    last_call: Mapping[str, float] | None = None,
) -> Sequence[tuple[str, ...]]:
    """Return groups of consoles: each is rung as a whole, after the one before it did not answer.

    ``last_first``: who was rung first last time (round robin). ``last_call``: console -> end of its
    last call; who has had none comes first.
    """
    free = [name for name in consoles if name not in busy]
    chosen = sorted(free or consoles)
    if not chosen:
        return ()
    if strategy is Strategy.ALL:
        return (tuple(chosen),)
    if strategy is Strategy.ROUND_ROBIN:
        start = next((index for index, name in enumerate(chosen) if name > last_first), 0)
        chosen = chosen[start:] + chosen[:start]
    else:
        ended = last_call or {}
        chosen.sort(key=lambda name: (ended.get(name, float("-inf")), name))
    return tuple((name,) for name in chosen)
