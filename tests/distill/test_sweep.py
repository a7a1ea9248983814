"""The search over prompts, with a Student and rules of test size."""

import json

import pytest

from pld.distill.render import exemplars_of
from pld.distill.sweep import Result, draw_spread
from pld.distill.trial import Material, draft
from pld.errors import DistillError
from pld.params import TeacherConsolidator
from pld.ports import TeacherAnswer
from support.word_student import WordStudent, instruction
from support.word_sweep import MATERIAL, RULES, ByNearest, rules_of, swept, whole


def drafted(**clustering):
    return draft(whole(**clustering), MATERIAL, ByNearest(), WordStudent(), None)


def by_draw(*draws):
    return [{"clustering.draw": draw} for draw in draws]


def test_a_trial_clusters_the_rules_of_its_draw_alone():
    for draw, ids in (
        (0, {r.id for r in rules_of(0)}),
        (1, {r.id for r in rules_of(1)}),
        (None, {r.id for r in RULES}),
    ):
        found = drafted(draw=draw)
        assert {rule_id for cluster in found.clustering.clusters for rule_id in cluster.rule_ids} == ids


def test_dropped_rules_are_in_no_cluster_and_behind_no_instruction():
    doubtful = {rule.id for rule in RULES if rule.doubtful}
    found = drafted(doubtful="drop")
    assert not doubtful & {rule_id for cluster in found.clustering.clusters for rule_id in cluster.rule_ids}
    assert not doubtful & {rule_id for item in found.instructions for rule_id in item.rule_ids}
    assert sum(item.support for item in drafted().instructions) == len(RULES)


def test_downweighted_rules_stay_behind_their_instruction_which_stands_where_their_weight_puts_it():
    kept, less = drafted(), drafted(doubtful="downweight")
    assert {frozenset(item.rule_ids) for item in kept.instructions} == {
        frozenset(item.rule_ids) for item in less.instructions
    }
    doubtful = sum(rule.doubtful for rule in RULES)
    assert sum(item.support for item in less.instructions) == pytest.approx(len(RULES) - 0.75 * doubtful)
    support = {item.id: item.support for item in less.instructions}
    order = [support[identity] for identity in less.prompt.instruction_ids]
    assert order == sorted(order, reverse=True)


def test_a_label_that_loses_all_its_rules_is_told_by_the_report():
    red = [item.model_copy(update={"doubtful": item.label == "red"}) for item in RULES]
    material = Material(**{**vars(MATERIAL), "rules": red})
    found = swept({"clustering.doubtful": "drop"}, material=material)
    assert found.results[0].report.labels_without_instruction == ("red",)


def test_where_every_rule_is_dropped_the_trial_fails_and_the_others_live():
    every = [item.model_copy(update={"doubtful": True}) for item in RULES]
    material = Material(**{**vars(MATERIAL), "rules": every})
    kept, dropped = swept({"clustering.doubtful": "keep"}, {"clustering.doubtful": "drop"}, material=material).results
    assert kept.report is not None
    assert dropped.error.startswith("expected rules whose gold label is not doubtful, got none of 60")
    with pytest.raises(DistillError, match=r"all 1 trials of the sweep failed; .*clustering\.doubtful=drop"):
        swept({"clustering.doubtful": "drop"}, material=material)


def test_each_set_of_rules_is_clustered_once():
    clusterer = ByNearest()
    points = [
        {**point, "clustering.doubtful": doubtful, "rendering.order": order}
        for point in by_draw(None, 0, 1)
        for doubtful in ("keep", "downweight", "drop")
        for order in ("support", "label")
    ]
    swept(*points, clusterer=clusterer)
    # both draws have the same vectors here, so the second one's clusters are known
    assert sorted(clusterer.asked) == [27, 30, 54, 60]


def test_the_spread_over_draws_is_that_of_their_best_trials_and_leaves_out_all_together():
    report = swept(*by_draw(0)).results[0].report

    def result(draw, value):
        figure = report.report.macro_f1.model_copy(update={"value": value})
        own = report.model_copy(
            update={"trial_id": f"t{value}", "report": report.report.model_copy(update={"macro_f1": figure})}
        )
        return Result({"clustering.draw": draw, "rendering.order": str(value)}, own, (), None)

    best_first = [result(None, 0.9), result(1, 0.75), result(0, 0.7), result(1, 0.5), result(0, 0.25)]
    spread = draw_spread(best_first)
    assert [(item.draw, item.trial_id, item.macro_f1) for item in spread.draws] == [
        (None, "t0.9", 0.9),
        (0, "t0.7", 0.7),
        (1, "t0.75", 0.75),
    ]
    assert spread.spread == pytest.approx(0.05)
    assert str(spread) == (
        "best macro-F1 on validation by draw: all together 0.900, 0 0.700, 1 0.750; the single draws are 0.050 apart"
    )
    assert json.loads(spread.model_dump_json())["draws"][0]["draw"] is None


def test_a_dud_of_a_draw_is_seen_in_the_spread():
    assert draw_spread(swept(*by_draw(None, 0, 1)).results).spread > 0.2


def test_without_a_search_over_draws_there_is_no_spread():
    assert draw_spread(swept({"rendering.order": "label"}).results) is None


def test_a_draw_of_which_every_trial_failed_says_so_and_has_no_spread():
    material = Material(**{**vars(MATERIAL), "rules": rules_of(0), "vectors": MATERIAL.vectors[::2]})
    spread = draw_spread(swept(*by_draw(0, 1), material=material).results)
    assert [(item.draw, item.macro_f1 is None) for item in spread.draws] == [(0, False), (1, True)]
    assert spread.spread is None
    assert str(spread).endswith("1 failed")


def test_an_example_of_several_draws_is_shown_once():
    own = rules_of(0)[0], rules_of(1)[0], rules_of(0)[5]
    by_id = {item.id: item for item in own}
    config = whole()
    showing = config.model_copy(update={"rendering": config.rendering.model_copy(update={"exemplars": 1})})
    found = exemplars_of([instruction("x", "red", own)], by_id, MATERIAL.train, showing)
    assert [example.id for (shown,) in [found.values()] for example in shown] == ["train-5", "train-0"]


def test_merging_is_asked_again_as_often_as_the_settings_say():
    class Refuses:
        name = "refuses"
        asked = 0

        def ask(self, requests):
            self.asked += len(requests)
            yield from (TeacherAnswer(request.key, None, "refusal: no") for request in requests)

    base, teacher = whole(draw=0), Refuses()
    consolidator = TeacherConsolidator(
        kind="teacher",
        scope="cluster",
        instructions=1,
        max_steps=9,
        min_share=0.0,
        max_rules=5,
        max_characters=50_000,
        max_words=40,
        max_calls=99,
    )
    asking = base.asking.model_copy(update={"attempts": 2})
    settings = base.model_copy(update={"consolidator": consolidator, "asking": asking})
    found = draft(settings, MATERIAL, ByNearest(), WordStudent(), teacher)
    merged = sum("merge refused: refusal" in item.origin for item in found.instructions)
    assert (teacher.asked, merged > 0) == (2 * merged, True)


def test_a_prompt_that_the_registry_has_no_room_for_fails_its_trial_with_the_cause():
    config = whole()
    long = config.task.model_copy(update={"base_instruction": "x" * 100_000})
    with pytest.raises(DistillError, match=r"at most 100,000 characters, which MLflow's registry takes, got 100,"):
        draft(config.model_copy(update={"task": long}), MATERIAL, ByNearest(), WordStudent(), None)
