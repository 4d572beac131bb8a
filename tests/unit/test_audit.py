"""Known vulnerabilities: the real pip-audit, and an OSV on the loopback (its API, version 1)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lading import audit
from lading.errors import EnvironmentProblem
from tests.support.index import only_loopback
from tests.support.osv import Osv
from tests.support.projects import YAML, Trial

Said = pytest.CaptureFixture[str]
FLAW = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-1"],
    "summary": "a lets\nanyone in",
    "affected": [
        {
            "package": {"name": "a", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Osv]:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    with Osv() as made:
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"{made.origin}/v1/query")
        yield made


@pytest.fixture
def trial(osv: Osv, tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


def test_what_is_known_is_said_and_ends_with_one(trial: Trial, osv: Osv, capsys: Said) -> None:
    osv.known["a", "1.0"] = [FLAW]
    assert trial.doit("audit", "one") == 1
    said = capsys.readouterr().out
    assert said.startswith(
        "a 1.0: one\n  PYSEC-2026-1 (CVE-2026-1): mended in 1.1\n    a lets anyone in\n"
    )
    assert "vulnerabilities: 1 known in 1 of 2 Python packages" in said
    assert sorted(osv.asked) == [("a", "1.0"), ("uv", "9")]
    assert trial.engine.calls == []
    assert trial.doit("audit", "--ignore", "CVE-2026-1", "one") == 0
    assert "none known in 2 Python packages" in capsys.readouterr().out
    assert trial.doit("audit", "--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["vulnerable"][0]["vulnerabilities"][0]["mended"] == ["1.1"]
    assert found["audited"] == 2


def test_two_versions_of_a_package_are_two_questions(osv: Osv, tmp_path: Path) -> None:
    osv.known["a", "1.0"] = [FLAW]
    wanted = [("a", "1.0"), ("a", "1.1"), ("b", "1"), ("odd", "not-a-version!")]
    report = audit.audited(wanted, os.environ, tmp_path / "cache")
    assert sorted(osv.asked) == [("a", "1.0"), ("a", "1.1"), ("b", "1")]
    assert set(report.flaws) == {("a", "1.0")}
    assert set(report.skipped) == {("odd", "not-a-version!")}


def test_a_service_that_is_down(trial: Trial, osv: Osv, capsys: Said) -> None:
    osv.status = 500
    assert trial.doit("audit") == 2
    assert "pip-audit could not ask for vulnerabilities" in capsys.readouterr().err
    osv.stop()
    assert trial.doit("audit") == 2
    said = capsys.readouterr().err
    assert "Connection refused" in said
    assert "PIP_AUDIT_OSV_URL" in said
    assert "Traceback" not in said


def test_no_pip_audit(trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentProblem, match="not installed") as caught:
        audit.command(os.environ)
    assert "-m pip install pip-audit" in caught.value.do


def test_the_one_on_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert audit.command({}) == [sys.executable, "-m", "pip_audit"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    program = tmp_path / "pip-audit"
    program.touch(mode=0o755)
    assert audit.command({"PATH": str(tmp_path)}) == [str(program)]


def test_a_lock_that_is_missing_is_said(trial: Trial, osv: Osv, capsys: Said) -> None:
    (trial.root / "locks/images/one/linux-amd64/requirements.txt").unlink()
    assert trial.doit("audit") == 2
    assert "one is not asked for: it is not locked yet" in capsys.readouterr().out
    assert trial.doit("audit", "on") == 3
    assert "did you mean one" in capsys.readouterr().err


def test_what_can_t_be_asked_for_beside_what_is(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a bot has written into a lock can be."""
    asked: list[list[audit.Package]] = []

    def known(wanted: Iterable[audit.Package], *_: object) -> audit.Report:
        asked.append(sorted(wanted))
        return audit.Report(flaws={("a", "1.0"): ()}, skipped={})

    monkeypatch.setattr(audit, "audited", known)
    section = "\n    base: slim\n    pip: {requirements: recipes/one.in}\n"
    yaml = YAML + "".join(f"  {name}:{section}" for name in ("bot", "torn"))
    yaml += "  unlocked:\n    base: slim\n    default: false\n    apt: [make]\n"
    trial = Trial.make(tmp_path / "project", yaml)
    folder = trial.root / "locks/images"
    (folder / "bot/linux-amd64/requirements.txt").write_text(f"a==1.1 --hash=sha256:{'1' * 64}\n")
    assert trial.doit("audit") == 1
    assert asked == [[("a", "1.0"), ("a", "1.1"), ("uv", "9")]]
    torn = folder / "torn/linux-amd64/requirements.txt"
    torn.write_text(torn.read_text() + "<<<<<<< ours\n")
    capsys.readouterr()
    assert trial.doit("audit", "--format", "json") == 2
    found = json.loads(capsys.readouterr().out)
    assert found["audited"] == 3
    path = "locks/images/torn/linux-amd64/requirements.txt"
    assert found["problems"] == [f"torn is not asked for: {path}:11: not a line of a lock"]
    assert trial.doit("audit", "one", "unlocked") == 2
    assert "unlocked is not asked for: it is not locked yet" in capsys.readouterr().out


def test_nothing_to_ask_for(trial: Trial, capsys: Said) -> None:
    assert trial.doit("audit", "two") == 0
    assert capsys.readouterr().out == "there is no Python package to ask for\n"
    assert trial.doit("audit", "two", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["audited"] == 0
