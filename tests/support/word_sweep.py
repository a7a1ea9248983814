"""A sweep of test size: two draws of rules, the second one a dud, and a clusterer without models."""

import numpy as np

from pld.config.composition import with_settings
from pld.distill.sweep import TrialRunner, race_sweep, sweep
from pld.distill.trial import Material
from pld.params import RaceParams
from support.word_student import WordStudent, config, embed, examples, rule

TRAIN, VALIDATION = examples("train", 30), examples("validation", 30)
DRAWS = 2


def rules_of(draw):
    """Draw 0 says what the examples tell of; draw 1 is a dud; the first three rules of each are doubtful."""
    found = [rule(example).model_copy(update={"draw": draw, "doubtful": i < 3}) for i, example in enumerate(TRAIN)]
    if not draw:
        return found
    return [
        item.model_copy(update={"id": f"{item.id}/1", "text": f"If it tells of nothing, answer {item.label}"})
        for item in found
    ]


RULES = [item for pair in zip(rules_of(0), rules_of(1), strict=True) for item in pair]
MATERIAL = Material(
    rules=RULES,
    vectors=np.repeat(embed([example.inputs["text"] for example in TRAIN]), DRAWS, axis=0),
    train={example.id: example for example in TRAIN},
    validation=VALIDATION,
)


class ByNearest:
    """Clusters by the greatest component; counts what it is asked."""

    def __init__(self):
        self.asked = []

    def cluster(self, vectors):
        self.asked.append(len(vectors))
        return vectors.argmax(axis=1).astype(np.int64)


class Points:
    """A study of `points`, one after the other."""

    def __init__(self, *points):
        self.points = points
        self.found = []

    def run(self, trial):
        self.found = [trial(point) for point in self.points]

    def results(self):
        return self.found


def whole(**clustering):
    base = config()
    extraction = base.extraction.model_copy(update={"draws": DRAWS})
    changed = base.clustering.model_copy(update=clustering)
    consolidator = base.consolidator.model_copy(update={"min_share": 0.0})
    return base.model_copy(update={"extraction": extraction, "clustering": changed, "consolidator": consolidator})


def _runner(clusterer, base=None, material=MATERIAL):
    base = base or whole()
    return TrialRunner(
        configured=lambda settings: with_settings(base, settings),
        build_clusterer=lambda _: clusterer,
        material=material,
        student=WordStudent(),
        teacher=None,
    )


def swept(*points, clusterer=None, **more):
    return sweep(Points(*points), _runner(clusterer or ByNearest(), **more), 2)


def raced(*points, first, clusterer=None, **more):
    """The race and the Student that it asked; parts are `first` examples a label, then all."""
    race = RaceParams(first=first, factor=3, keep=0.33, alpha=0.05)
    params = whole().sweep.model_copy(update={"sampler": "race", "race": race, "finalists": 2})
    runner = _runner(clusterer or ByNearest(), **more)
    return race_sweep(points, runner, params), runner.student
