"""Packs contain every prompt and label, no node twice, and aren't too large."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pld.adapters.students.engine.label_tree import LabelTree
from pld.adapters.students.engine.token_trie import WORTH_A_BRANCH, Rest, plan

TREES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(
    LabelTree.of
)
FEW = settings(max_examples=40, deadline=None)
IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)


@st.composite
def rests(draw):
    """Prompts of a few short tails after beginnings of any length, some of which many of them share."""
    beginnings = draw(st.lists(st.integers(0, 90).map(lambda n: (5, 6, 7) * n), min_size=1, max_size=3))
    tails = draw(st.lists(st.tuples(st.sampled_from(beginnings), IDS, TREES), min_size=1, max_size=25))
    return [Rest(index, beginning + tail, tree) for index, (beginning, tail, tree) in enumerate(tails)]


def packs_of(branch, before=()):
    before = before + branch.ids
    for pack in branch.packs:
        yield before, pack
    for inner in branch.branches:
        yield from packs_of(inner, before)


def computed(branch):
    """Tokens of all forward passes."""
    tokens = len(branch.ids) + sum(len(pack.tokens) for pack in branch.packs)
    return tokens + sum(map(computed, branch.branches))


def spelled(pack, node):
    return (*spelled(pack, pack.parents[node]), pack.tokens[node]) if node >= 0 else ()


@FEW
@given(rests(), st.integers(1, 60), st.integers(1, 3))
def test_the_path_to_a_prompts_nodes_spells_the_prompt_and_its_labels(rests, nodes, parallel):
    found = []
    for before, pack in packs_of(plan(rests, nodes, parallel)):
        for index, places in pack.places.items():
            found.append(index)
            rest = rests[index]
            assert len(places) == 1 + len(rest.tree.tokens)
            assert before + spelled(pack, places[0]) == rest.ids
            for at, (token, parent) in enumerate(zip(rest.tree.tokens, rest.tree.parents, strict=True), 1):
                assert pack.parents[places[at]] == places[parent]
                assert pack.tokens[places[at]] == token
    assert sorted(found) == list(range(len(rests)))


@FEW
@given(rests(), st.integers(1, 60))
def test_a_node_comes_after_its_parent_and_is_unique(rests, nodes):
    for _, pack in packs_of(plan(rests, nodes)):
        for node, parent in enumerate(pack.parents):
            assert parent < node
            assert pack.depths[node] == (pack.depths[parent] + 1 if parent >= 0 else 0)
        assert len(set(zip(pack.parents, pack.tokens, strict=True))) == len(pack.tokens)


@FEW
@given(rests(), st.integers(1, 60))
def test_only_a_nodes_ancestors_and_itself_are_visible_to_it(rests, nodes):
    for _, pack in packs_of(plan(rests, nodes)):
        sees = pack.visible()
        for node, parent in enumerate(pack.parents):
            wanted = {node} | (set(sees[parent].nonzero()[0]) if parent >= 0 else set())
            assert set(sees[node].nonzero()[0]) == wanted


@FEW
@given(rests(), st.integers(1, 60), st.integers(1, 3))
def test_a_pack_exceeds_the_limit_only_if_a_single_prompt_does(rests, nodes, parallel):
    largest = max(min(len(rest.ids), WORTH_A_BRANCH + 12) + len(rest.tree.tokens) for rest in rests)
    for _, pack in packs_of(plan(rests, nodes, parallel)):
        assert len(pack.tokens) <= max(nodes, largest)


@FEW
@given(rests(), st.integers(40, 90))
def test_each_pack_recomputes_less_than_a_branch(rests, nodes):
    root = plan(rests, nodes)
    once = {rest.ids[:end] for rest in rests for end in range(1, len(rest.ids) + 1)}
    once |= {rest.ids + tuple(rest.tree.tokens[node] for node in path) for rest in rests for path in _paths(rest.tree)}
    packs = sum(1 for _ in packs_of(root))
    assert len(once) <= computed(root) <= len(once) + packs * (WORTH_A_BRANCH + 3)


def _paths(tree):
    paths = {0: ()}
    for node, parent in enumerate(tree.parents):
        paths[1 + node] = (*paths[parent], node)
    return [path for path in paths.values() if path]


def test_a_document_that_many_questions_share_is_computed_once():
    label = LabelTree.of([(1,), (2,)])
    document = tuple(range(1000, 1900))
    rests = [Rest(n, (*document, n, n + 1, n + 2), label) for n in range(17)]
    root = plan(rests, 384, 2)
    assert [len(branch.ids) for branch in root.branches] == [900]
    assert computed(root) == 900 + 17 * 3


def test_packs_share_the_work_evenly_among_workers():
    label = LabelTree.of([(1,)])
    rests = [Rest(n, tuple(range(100 * n, 100 * n + 20)), label) for n in range(30)]
    sizes = [len(pack.tokens) for pack in plan(rests, 384, 2).packs]
    assert sizes == [300, 300]
    assert [len(pack.tokens) for pack in plan(rests, 384, 1).packs] == [300, 300]
    assert [len(pack.tokens) for pack in plan(rests[:10], 384, 2).packs] == [200]
    # on many cores packs stay worth reading the weights for
    assert [len(pack.tokens) for pack in plan(rests, 384, 64).packs] == [100] * 6
