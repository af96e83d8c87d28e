"""Trials that run beside each other, fail, are interrupted and are waited for; the commands are real processes."""

import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from align_ti.studies.tables import commands, runner
from align_ti.studies.tables.commands import Commands, Ended, only_here
from align_ti.studies.tables.runner import Work, run_trial, run_trials
from align_ti.studies.tables.runs import find_runs
from align_ti.studies.tables.trial import plan_trials
from llava.errors import InputError
from llava.train import run_lock


@pytest.fixture
def trials(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "check_recipes", lambda *of: None)
    return plan_trials(find_runs(["sft", "sft+kd"]), range(3), tmp_path)


def test_two_at_a_time(trials, monkeypatch):
    together, begun = threading.Barrier(2, timeout=20), []

    def meet(trial, work):
        begun.append(trial)
        together.wait()

    monkeypatch.setattr(runner, "run_trial", meet)
    run_trials(trials, Work(), jobs=2)
    assert sorted(begun, key=str) == sorted(trials, key=str)


def test_a_failure_is_said_at_once_and_nothing_more_is_begun(trials, monkeypatch, caplog):
    begun, said, both = [], threading.Event(), threading.Barrier(2, timeout=20)

    class Listener(logging.Handler):
        def emit(self, record):
            if "sft, seed 0: failed" in record.getMessage():
                said.set()

    def fail_or_wait(trial, work):
        begun.append(trial)
        both.wait()
        if trial.name == "sft":
            raise InputError("out of memory")
        assert said.wait(20), "the failure is said while the other one runs"

    monkeypatch.setattr(runner, "run_trial", fail_or_wait)
    runner.logger.addHandler(listener := Listener())
    try:
        with pytest.raises(InputError, match="out of memory"):
            run_trials(trials, Work(), jobs=2)
    finally:
        runner.logger.removeHandler(listener)
    assert len(begun) == 2


def test_a_command_that_fails_says_the_end_of_its_log(tmp_path):
    with only_here(tmp_path / "trial", Commands()) as held:
        with pytest.raises(InputError, match=r"status 3; the end of .*log:\nno more room"):
            Commands().run(["bash", "-c", "echo no more $WHAT; exit 3"], tmp_path / "log", {"WHAT": "room"}, held)


def test_ended_commands_may_save_what_they_have(tmp_path):
    """A shell that ends at once leaves a child that takes a second: the folder is given back after that."""
    saving = "import signal, time\ndef save(*of):\n time.sleep(1)\n open('SAVED', 'w').close()\n raise SystemExit\n"
    saving += "signal.signal(signal.SIGTERM, save)\nopen('READY', 'w').close()\ntime.sleep(60)\n"
    saving = saving.replace("SAVED", str(tmp_path / "saved")).replace("READY", str(tmp_path / "ready"))
    (tmp_path / "saving.py").write_text(saving)
    running, found = Commands(), []

    def work():
        try:
            with only_here(tmp_path / "trial", running) as held:
                running.run(["bash", "-c", f"{sys.executable} {tmp_path}/saving.py; true"], tmp_path / "log", {}, held)
        except Ended:
            found.append((tmp_path / "saved").exists())

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(tmp_path / "ready")
    started = time.monotonic()
    running.end()
    thread.join(30)
    assert found == [True] and time.monotonic() - started < 20
    with pytest.raises(Ended), only_here(tmp_path / "trial", running):
        pass
    with pytest.raises(Ended):
        running.run(["true"], tmp_path / "log", {}, 1)


def wait_for(file: Path) -> None:
    until = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < until, f"{file} did not appear"
        time.sleep(0.05)


def test_what_outlives_its_table_is_waited_for(tmp_path, caplog):
    with only_here(tmp_path / "trial", Commands()) as held:
        left = subprocess.Popen(["sleep", "2"], pass_fds=[held])
    with caplog.at_level(logging.INFO, commands.__name__), only_here(tmp_path / "trial", Commands()):
        assert left.poll() is not None or left.wait(1) == 0
    assert f"trial is worked on by process {os.getpid()} or what it started; waiting" in caplog.text


def test_waiting_for_another_table_ends_at_once(tmp_path):
    """The other one's training is not ours to wait for."""
    waiting, found = Commands(), []

    def work():
        try:
            with only_here(tmp_path / "trial", waiting):
                found.append("taken")
        except Ended:
            found.append("ended")

    with only_here(tmp_path / "trial", Commands()):
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.3)
        waiting.end()
        thread.join(10)
    assert found == ["ended"]


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def refuse(*of):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with only_here(tmp_path / "trial", Commands()):
        pass
    assert "the file system has no locks (Function not implemented)" in caplog.text


def test_another_table_trains_the_student_with_other_settings_meanwhile(models, setting, monkeypatch):
    """Two tables pass the check while there is nothing; the second finds what the first one made."""
    (trial,) = plan_trials(find_runs(["sft"]), [0], models / "tables")
    work = Work(setting("--learning_rate", "1e-4"))
    work.check([trial])
    trial.model.mkdir(parents=True)
    trial.recipe_file.write_text(json.dumps(Work(setting()).recipe(trial)))
    monkeypatch.setattr(Commands, "run", lambda *of: pytest.fail("nothing may be trained"))
    with pytest.raises(InputError, match="its learning_rate is '1e-3', now it would be '1e-4'"):
        run_trial(trial, work)


def test_a_trial_that_another_table_finished_meanwhile(trials, finish, monkeypatch):
    finish(trials[0], 5.0)
    monkeypatch.setattr(Commands, "run", lambda *of: pytest.fail("nothing is left to do"))
    run_trial(trials[0], Work())
