from hypothesis import given
from hypothesis import strategies as st

from pld.adapters.students.engine.label_tree import LabelTree, common_length, with_end

LABELS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=6)


def spelled(tree, where):
    """The tokens from the prompt's end to a place of the tree."""
    return (*spelled(tree, tree.parents[where - 1]), tree.tokens[where - 1]) if where else ()


@given(LABELS)
def test_the_steps_of_a_label_spell_it(labels):
    tree = LabelTree.of(labels)
    for label, steps in zip(labels, tree.steps, strict=True):
        assert tuple(token for _, token in steps) == label
        for at, (where, _) in enumerate(steps):
            assert spelled(tree, where) == label[:at]


@given(LABELS)
def test_a_prefix_that_labels_share_is_one_node(labels):
    tree = LabelTree.of(labels)
    assert len(tree.tokens) == len({label[:end] for label in labels for end in range(1, len(label))})
    assert all(parent <= node for node, parent in enumerate(tree.parents))


@given(LABELS)
def test_labels_followed_by_an_end_never_nest(labels):
    closed = with_end(labels, end=9)
    assert not any(a != b and b[: len(a)] == a for a in closed for b in closed)


def test_only_nested_labels_get_an_end():
    assert with_end([(1, 2), (1, 3)], end=9) == ((1, 2), (1, 3))
    assert with_end([(1,), (1, 3), (2,)], end=9) == ((1, 9), (1, 3, 9), (2, 9))
    assert with_end([(), (1,)], end=9) == ((9,), (1, 9))


@given(st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), min_size=1, max_size=5))
def test_common_length_is_that_of_the_longest_common_prefix(sequences):
    length = common_length(sequences)
    assert len({sequence[:length] for sequence in sequences}) == 1
    longer = {sequence[: length + 1] for sequence in sequences}
    assert len(longer) > 1 or any(len(sequence) == length for sequence in sequences)
