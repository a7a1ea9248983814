"""Clusterers of rule vectors, and the setting that grows with the number of rows."""


def in_proportion(value: int, rows: int, grow_from: int | None) -> int:
    """`value` up to `grow_from` rows (None: always), beyond that in proportion to the rows, rounded up.

    Eight rules that agree mean something among 349 and little among 100,000, where they would make hundreds of clusters
    and a prompt that is too long.
    """
    if grow_from is None or rows <= grow_from:
        return value
    return -(-value * rows // grow_from)
