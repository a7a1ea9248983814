"""Settings that grow with the number of rows: eight rules that agree say something among 349, and little among 100,000,
where they would make hundreds of clusters and a prompt that is too long."""


def in_proportion(value: int, rows: int, grow_from: int | None) -> int:
    """`value` for up to `grow_from` rows (None: for any number of them); for more in proportion, rounded up."""
    if grow_from is None or rows <= grow_from:
        return value
    return -(-value * rows // grow_from)
