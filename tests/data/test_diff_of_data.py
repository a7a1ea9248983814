from hypothesis import given
from hypothesis import strategies as st

from pld.data.diff import Placed, compare_examples
from pld.records import SPLITS, Example

LABELS = ("yes", "no")


def keyed(examples):
    """Examples of (split, label, group, text) by id."""
    return {
        identity: Example(id=identity, inputs={"text": text}, label=label, split=split, group=group)
        for identity, (split, label, group, text) in examples.items()
    }


parts = st.tuples(
    st.sampled_from(SPLITS), st.sampled_from(LABELS), st.sampled_from([None, "g"]), st.sampled_from("abc")
)
versions = st.dictionaries(st.sampled_from("123456"), parts, max_size=6).map(keyed)


def ids(rows):
    return [row.id for row in rows]


@given(versions, versions)
def test_the_earlier_version_with_the_changes_applied_is_the_later_one(before, after):
    found = compare_examples(before, after, LABELS)
    rebuilt = {identity: (own.split, own.label) for identity, own in before.items()}
    for one in found.removed:
        assert rebuilt.pop(one.id) == (one.split, one.label)
    for one in found.added:
        assert one.id not in rebuilt
        rebuilt[one.id] = (one.split, one.label)
    for one in found.relabelled:
        assert rebuilt[one.id][1] == one.before
        rebuilt[one.id] = (rebuilt[one.id][0], one.after)
    for one in found.moved:
        assert rebuilt[one.id][0] == one.before
        rebuilt[one.id] = (one.after, rebuilt[one.id][1])
    assert rebuilt == {identity: (own.split, own.label) for identity, own in after.items()}
    both = before.keys() & after.keys()
    assert set(ids(found.edited)) == {key for key in both if before[key].inputs != after[key].inputs}
    assert set(ids(found.regrouped)) == {key for key in both if before[key].group != after[key].group}
    assert found.same == (before == after)


@given(versions, versions)
def test_swapping_the_versions_mirrors_the_changes(before, after):
    there, back = compare_examples(before, after, LABELS), compare_examples(after, before, LABELS)
    assert (there.added, there.removed) == (back.removed, back.added)
    assert (there.before, there.after) == (back.after, back.before)
    for one, other in ((there.relabelled, back.relabelled), (there.moved, back.moved)):
        assert sorted((x.id, x.before, x.after) for x in one) == sorted((x.id, x.after, x.before) for x in other)
    assert there.reordered == back.reordered


@given(versions, versions)
def test_counts_are_of_every_split_and_label(before, after):
    found = compare_examples(before, after, LABELS)
    for split in SPLITS:
        for label in LABELS:
            now = sum(own.split == split and own.label == label for own in after.values())
            assert found.after[split][label] == now
    assert list(found.after) == list(SPLITS)


def test_the_teacher_is_asked_about_texts_and_labels_that_no_training_example_had():
    before = keyed(
        {
            "same": ("train", "yes", None, "a"),
            "relabelled": ("train", "yes", None, "b"),
            "edited": ("train", "yes", None, "c"),
            "to train": ("test", "yes", None, "d"),
            "to test": ("train", "yes", None, "e"),
            "renamed": ("train", "yes", None, "f"),
        }
    )
    after = keyed(
        {
            "same": ("train", "yes", None, "a"),
            "relabelled": ("train", "no", None, "b"),
            "edited": ("train", "yes", None, "C"),
            "to train": ("train", "yes", None, "d"),
            "to test": ("test", "yes", None, "e"),
            "another name": ("train", "yes", None, "f"),
            "added": ("train", "no", None, "g"),
            "added to test": ("test", "no", None, "h"),
        }
    )
    found = compare_examples(before, after, LABELS)
    assert found.new_to_teacher == ("relabelled", "edited", "to train", "added")
    assert found.removed == (Placed(id="renamed", split="train", label="yes"),)


def test_only_the_order_within_a_split_is_an_order():
    train, test, other = ("train", "yes", None, "a"), ("test", "no", None, "b"), ("train", "no", None, "c")
    before = keyed({"1": train, "2": test, "3": other})
    assert not compare_examples(before, keyed({"2": test, "1": train, "3": other}), LABELS).reordered
    swapped = compare_examples(before, keyed({"3": other, "1": train, "2": test}), LABELS)
    assert (swapped.same, swapped.reordered) == (True, True)
