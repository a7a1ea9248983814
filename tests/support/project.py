"""A copy of this project in a folder of its own, as a git repository, for the real DVC and MLflow to work on."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Project:
    folder: Path

    @property
    def environment(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "ANTHROPIC_"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "tests/support/no_network"),
            "NO_NETWORK_LOG": str(self.folder.parent / "network.log"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
        }  # fmt: skip

    def run(self, *command, check=True, **environment):
        """The finished process; its output is part of the failure when it was to succeed and did not."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment | environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *command):
        """Run what leaves processes behind: they would hold a pipe open after it is done."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, command

    def select(self, overrides=(), **groups):
        """Change params.yaml."""
        path = self.folder / "params.yaml"
        value = yaml.safe_load(path.read_text())
        value["groups"] |= groups
        value["overrides"] = list(overrides)
        path.write_text(yaml.safe_dump(value, sort_keys=False))

    def commit(self, message="change"):
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", message)

    def contacted(self):
        """Hosts outside this machine that a command tried to reach."""
        log = self.folder.parent / "network.log"
        return sorted(set(log.read_text().split())) if log.exists() else []


def copy_project(folder):
    """All files that git would commit, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    project = Project(folder)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("the project")
    return project
