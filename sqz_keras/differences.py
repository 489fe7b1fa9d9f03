"""What changed between two requests, for the message that refuses to mix them."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def describe_changes(before: Mapping, after: Mapping, ignore: Collection[str] = (), prefix: str = "") -> str:
    """The fields that differ, as "name was 1, now 2; group.name was ..."; "" if none differ.

    Args:
        before: Parsed JSON.
        after: Likewise.
        ignore: Names of fields that may differ.
        prefix: Put before each name.
    """
    changes = []
    for name in sorted((before.keys() | after.keys()) - set(ignore)):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes.append(describe_changes(old, new, prefix=f"{prefix}{name}."))
        else:
            changes.append(f"{prefix}{name} was {old!r:.80}, now {new!r:.80}")
    return "; ".join(changes)
