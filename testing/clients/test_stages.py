"""The stage runner itself: what looks like success and is none must fail."""

import sys

import pytest

import harness

sys.path.insert(0, str(harness.ROOT / "testing"))
import stages  # noqa: E402


@pytest.mark.parametrize(
    ("summary", "passed"),
    [
        ("     Summary [   0.185s] 35 tests run: 35 passed, 0 skipped", 35),
        ("     Summary [  61.002s] 1 test run: 1 passed (1 slow), 0 skipped", 1),
        ("     Summary [   1.2s] 7 tests run: 7 passed", 7),
        ("     Summary [   0.185s] 35 tests run: 35 passed, 3 skipped", None),
        ("     Summary [   0.185s] 35 tests run: 34 passed, 1 failed, 0 skipped", None),
        ("error: no tests to run", None),
    ],
)
def test_rust_tests_pass_only_when_all_ran(summary, passed):
    if passed is None:
        with pytest.raises(stages.Failure):
            stages.rust_tests_passed(summary)
    else:
        assert stages.rust_tests_passed(summary) == passed


def test_long_tests_pass_only_when_each_was_seen(monkeypatch):
    monkeypatch.setattr(stages, "LONG_TESTS", ["faults::one", "faults::two"])
    one = "        PASS [  10.584s] (1/2) codex-lb::gateway faults::one\n"
    two = "        PASS [ 110.584s] codex-lb::gateway faults::two\n"
    assert stages.long_tests_passed(one + two) == 2
    for output in [one, one + two.replace("PASS", "FAIL"), "no tests to run"]:
        with pytest.raises(stages.Failure):
            stages.long_tests_passed(output)


@pytest.mark.parametrize(
    ("summary", "passed"),
    [("== 28 passed in 3.20s ==", 28), ("28 passed, 1 skipped in 3s", None), ("no tests ran in 0.01s", 0)],
)
def test_client_tests_pass_only_when_all_ran(summary, passed):
    if passed is None:
        with pytest.raises(stages.Failure):
            stages.python_tests_passed(summary)
    else:
        assert stages.python_tests_passed(summary) == passed


def test_the_first_failing_stage_ends_the_run_and_is_named(capsys):
    ran = []

    def stage(name, passed):
        def run(context):
            ran.append(name)
            return passed

        return stages.Stage(name, run)

    assert stages.run_suite([stage("one", 3), stage("none", 0), stage("never", 1)]) == 1
    assert ran == ["one", "none"]
    assert "stage failed: none" in capsys.readouterr().out
    assert stages.run_suite([stage("one", 3), stage("two", 4)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("7 passed, 0 failed")


def test_a_command_that_fails_fails_its_stage(capsys):
    with pytest.raises(stages.Failure):
        stages.Context().command("false")
