"""Code is compared with that of a commit, without docstrings, comments and bars."""

import subprocess

import pytest

from cvjax.programs import provenance


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a config and its system."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    for name in ("cvjax/generative", "cvjax/nets", "cvjax/metrics", "configs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cvjax/generative/gan.py").write_text("from cvjax.nets import layers\nfrom cvjax.core import State\n")
    (tmp_path / "cvjax/nets/layers.py").write_text('"""Layers."""\n\ndef dense(x):\n    return x\n')
    (tmp_path / "cvjax/core.py").write_text("State = dict\n")
    (tmp_path / "configs/gan.py").write_text('CONFIG = dict(steps=5, expect={"fid": ("<=", 1)})\n')
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True)
    return tmp_path


def test_files_of_a_system_are_those_it_imports_without_the_loop(project):
    assert provenance.source_files("generative.gan") == ["cvjax/generative/gan.py", "cvjax/nets/layers.py"]


def test_only_code_counts_as_changed(project):
    commit, layers, settings = provenance.present_commit(), project / "cvjax/nets/layers.py", project / "configs/gan.py"
    files = [*provenance.source_files("generative.gan"), "configs/gan.py"]
    assert len(commit) == 40 and not provenance.changed_since(commit, files)
    layers.write_text('"""Layers of networks."""\n\ndef dense(x):\n    """Does nothing."""\n    return x  # yet\n')
    settings.write_text('CONFIG = dict(steps=5, expect={"fid": ("<=", 2)})\n')
    assert not provenance.changed_since(commit, files) and provenance.present_commit() == f"{commit}+"
    layers.write_text("def dense(x):\n    return 2 * x\n")
    assert provenance.changed_since(commit, files) and provenance.changed_since(f"{commit}+", files)
    assert not provenance.changed_since(commit, ["configs/gan.py"])
    settings.write_text('CONFIG = dict(steps=6, expect={"fid": ("<=", 2)})\n')
    assert provenance.changed_since(commit, ["configs/gan.py"])
    layers.unlink()
    assert provenance.changed_since(commit, ["cvjax/nets/layers.py"])


def test_an_unknown_commit_counts_as_changed(project):
    assert provenance.changed_since("0" * 40, ["configs/gan.py"])


def test_without_git_nothing_is_marked(project, monkeypatch):
    commit = provenance.present_commit()
    monkeypatch.setenv("PATH", "")
    assert provenance.present_commit() is None
    assert not provenance.changed_since(commit, ["configs/gan.py"])
