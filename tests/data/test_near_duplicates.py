import random
import time

from hypothesis import given
from hypothesis import strategies as st

from pld.data.near_duplicates import THRESHOLD, jaccard, near_duplicates

DRAWN = random.Random(7)
WORDS = ["".join(DRAWN.choices("abcdefgh", k=4)) for _ in range(300)]


def texts(count, words=60):
    drawn = random.Random(count)
    return [drawn.choices(WORDS, k=words) for _ in range(count)]


def test_planted_near_duplicates_are_found_and_nothing_else():
    plain = texts(2000)
    found = [" ".join(words) for words in plain]
    for at in range(0, 2000, 10):  # three of 60 words replaced, 7 of 59 pairs or fewer differ
        words = list(plain[at])
        for place in (5, 25, 45):
            words[place] = "replaced"
        found[at + 1] = " ".join(words)
    links = near_duplicates(found)
    assert {(first, second) for first, second, _ in links} <= {(at, at + 1) for at in range(0, 2000, 10)}
    assert len(links) >= 198


@given(st.lists(st.lists(st.sampled_from(WORDS[:12]), max_size=14).map(" ".join), max_size=40))
def test_links_join_similar_texts_in_order_and_form_a_forest(found):
    above = list(range(len(found)))
    for first, second, common in near_duplicates(found):
        assert first < second
        assert THRESHOLD <= common == jaccard(found[first], found[second])
        assert above[first] != above[second], "a second way between two texts"
        above = [above[first] if at == above[second] else at for at in above]


def test_case_punctuation_and_blanks_are_ignored_and_scripts_without_spaces_are_compared_by_character():
    assert near_duplicates(["The server is DOWN, again!", "the  server is down again"]) == [(0, 1, 1.0)]
    first, second = (
        "今日は天気がとても良いので公園まで散歩に行きました",
        "今日は天気がとても良いので公園まで散歩に行きます",
    )
    assert near_duplicates([first, second, "昨日の夜は雨が降っていたので家で本を読んでいた"]) == [
        (0, 1, jaccard(first, second))
    ]


def test_texts_without_words_are_like_no_other():
    assert near_duplicates(["", "…", "?!", " "]) == []
    assert near_duplicates([]) == []
    assert near_duplicates(["alone"]) == []


def test_many_texts_that_are_all_alike_are_linked_in_a_line_and_not_all_with_all():
    found = [f"{' '.join(WORDS[:40])} number {at}" for at in range(3000)]
    started = time.process_time()
    assert len(near_duplicates(found)) == 2999
    assert time.process_time() - started < 10  # 4.5 million pairs would take minutes
