"""conf/ and params.yaml: every option composes and builds, and a mistake is told in one line."""

import shutil
from pathlib import Path

import pytest
import yaml

from pld.config.build import build
from pld.config.composition import ROLES_WITH_TARGET, compose, with_settings
from pld.errors import ConfigError

CONF = Path("conf")
MENU = [
    (folder.name, option.stem)
    for folder in sorted(CONF.iterdir())
    if folder.is_dir()
    for option in folder.glob("*.yaml")
]


@pytest.fixture
def selections(tmp_path):
    value = yaml.safe_load(Path("params.yaml").read_text())

    def write(overrides=(), **groups):
        value["groups"] |= groups
        value["overrides"] = list(overrides)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(value))
        return path

    return write


@pytest.mark.parametrize(("role", "option"), MENU)
def test_every_option_of_the_menu_composes_and_builds(role, option, selections):
    config = compose(CONF, selections(**{role: option}))
    for name in ROLES_WITH_TARGET:
        assert build(getattr(config, name), name)


def test_overrides_are_hydras(selections):
    config = compose(CONF, selections(["clusterer.eps=0.3", "rendering.exemplars=2"], clusterer="dbscan"))
    assert config.clusterer["eps"] == 0.3
    assert config.rendering.exemplars == 2


@pytest.mark.parametrize("sampler", ["race", "grid", "tpe"])
def test_the_space_follows_the_consolidator_and_where_clusters_matter_the_clusterer(selections, sampler):
    def space(**groups):
        return compose(CONF, selections(**groups, sweep=sampler)).sweep.space

    for consolidator in ("medoid", "teacher_clusters"):
        assert "eps" in space(consolidator=consolidator, clusterer="dbscan")["clusterer"]
        assert "eps" not in space(consolidator=consolidator, clusterer="umap_hdbscan")["clusterer"]
    by_label = space(consolidator="teacher")
    assert "clusterer" not in by_label
    assert by_label["rendering"]["exemplars"] == (0, 12, 24, 48)


def test_a_race_needs_its_settings_and_runs_in_one_process(selections):
    with pytest.raises(ConfigError, match="expected race with sampler race, got null"):
        compose(CONF, selections(["sweep.race=null"], sweep="race"))
    with pytest.raises(ConfigError, match="expected storage null with sampler race"):
        compose(CONF, selections(["sweep.storage='sqlite:///x.db'"], sweep="race"))


def test_a_task_of_long_inputs_leaves_out_prompts_that_hold_many_of_them(selections):
    ways = {
        task: compose(CONF, selections(task=task, consolidator="medoid")).sweep.space["rendering"]
        for task in ("contract_nli", "tickets")
    }
    assert ways["contract_nli"]["exemplars_per"] == ("label",)
    assert ways["tickets"]["exemplars_per"] == ("label", "instruction")
    assert ways["contract_nli"]["frame"] == ways["tickets"]["frame"]


@pytest.mark.parametrize(
    ("overrides", "groups", "words"),
    [
        (["clusterer.epz=0.3"], {"clusterer": "dbscan"}, ["clusterer.epz", "'eps'", "conf/clusterer/dbscan.yaml"]),
        (["+clusterer.epz=0.3"], {"clusterer": "dbscan"}, ["clusterer.epz", "eps", "conf/clusterer/"]),
        (["rendring.order=label"], {}, ["rendring.order", "rendering"]),
        (["rendering.order=size"], {}, ["rendering.order", "'support'", "'size'"]),
        (["+extraction.max_wrds=3"], {}, ["extraction.max_wrds", "max_words", "conf/config.yaml"]),
        (["clusterer.eps=wide"], {"clusterer": "dbscan"}, ["clusterer.eps", "number", "'wide'"]),
        (
            ["sweep.space.clusterer.eps=[wide]"],
            {"clusterer": "dbscan", "consolidator": "medoid"},
            ["clusterer.eps", "'wide'"],
        ),
        (["+sweep.space.clusterer.radius=[1]"], {}, ["clusterer.radius", "n_neighbors"]),
        (["+sweep.space.student.dtype=[float32]"], {}, ["sweep.space", "student"]),
        (["+sweep.space.clustering.draw=[null]", "rendering.ordr=label"], {}, ["rendering.ordr", "'order'"]),
        (["teacher._target_=os.system"], {}, ["pld.adapters", "os.system"]),
        (["teacher._target_=pld.adapters.nothing.Here"], {}, ["pld.adapters.nothing"]),
        (["task.labels=[one]"], {}, ["labels", "two or more"]),
        (["sweep.sampler=tpe"], {}, ["trials"]),
        ([], {"clusterer": "kmeans"}, ["groups.clusterer", "dbscan", "umap_hdbscan", "'kmeans'"]),
        ([], {"clusters": "dbscan"}, ["groups.clusters", "'clusterer'"]),
        (["clusterer.eps"], {"clusterer": "dbscan"}, ["clusterer.eps"]),
    ],
)
def test_a_mistake_names_itself_and_what_there_is_in_one_line(selections, overrides, groups, words):
    with pytest.raises(ConfigError) as caught:
        compose(CONF, selections(overrides, **groups))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_a_key_of_params_that_is_missing_or_surplus_is_told(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("groups: {}\n")
    with pytest.raises(ConfigError, match="expected the keys groups and overrides, got 'groups'"):
        compose(CONF, path)


def test_a_wrong_key_in_an_option_file_names_its_file(tmp_path, selections):
    shutil.copytree(CONF, tmp_path / "conf")
    option = tmp_path / "conf/promotion/default.yaml"
    option.write_text(option.read_text().replace("max_p95_ms", "max_p95"))
    with pytest.raises(ConfigError, match=r"conf/promotion/.*promotion\.max_p95'; did you mean|promotion.max_p95_ms"):
        compose(tmp_path / "conf", selections())


def test_a_trials_settings_are_checked_like_the_rest(selections):
    config = compose(CONF, selections(clusterer="dbscan"))
    assert with_settings(config, {"clusterer.eps": 0.25}).clusterer["eps"] == 0.25
    with pytest.raises(ConfigError, match="clusterer"):
        with_settings(config, {"clusterer.eps": "wide"})
