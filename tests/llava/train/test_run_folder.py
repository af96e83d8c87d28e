"""What a run's folder says of the code: the commit, and whether it was changed since."""

import subprocess

from llava.train.run_record import code_commit


def test_the_commit_and_what_was_changed_since(tmp_path):
    """Results in docs/ are not code; a file that git does not know says nothing."""

    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=tmp_path, check=True)

    assert code_commit(tmp_path / "nowhere") is None
    (tmp_path / "code").mkdir()
    (tmp_path / "docs").mkdir()
    git("init", "--quiet")
    assert code_commit(tmp_path / "code") is None, "no commit yet"
    for file in ("code/a.py", "docs/result.json"):
        (tmp_path / file).write_text("1")
    git("add", "-A")
    git("commit", "--quiet", "-m", "first")
    commit = code_commit(tmp_path / "code")
    assert commit is not None and len(commit) >= 7 and "-" not in commit
    (tmp_path / "docs/result.json").write_text("2")
    (tmp_path / "code/new.py").write_text("2")
    assert code_commit(tmp_path / "code") == commit
    (tmp_path / "code/a.py").write_text("2")
    assert code_commit(tmp_path / "code") == f"{commit}-dirty"
