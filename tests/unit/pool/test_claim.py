"""What a claim says of its user and session."""

from __future__ import annotations

import pytest

from ipclock import users
from ipclock.linux import process, procfs
from ipclock.pool.claim import Claim
from ipclock.pool.record_name import RecordName, parse


@pytest.mark.parametrize("between", ["user", "session"])
def test_a_party_fits_into_the_name_of_a_record(between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPCLOCK_SESSION", "배포/a,b\n")
    entry = RecordName(17, units=2, party=Claim("a").party(between))

    assert (parse(entry.file), entry.party != "") == (entry, True)


def test_a_session_is_the_one_that_is_named_else_that_of_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPCLOCK_SESSION", raising=False)
    login = Claim("a").party("session")
    found = []
    for name in ("one", "two", "one", ""):
        monkeypatch.setenv("IPCLOCK_SESSION", name)
        found.append(Claim("a").party("session"))

    assert (found[0] == found[2], len(set(found)), found[3]) == (True, 3, login)


def test_two_users_that_name_their_sessions_alike_have_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPCLOCK_SESSION", "one")
    found = []
    for uid in ("1000", "1001"):
        monkeypatch.setattr(users, "key", lambda uid=uid: uid)
        found.append(Claim("a").party("session"))

    assert found[0] != found[1]


def test_in_a_pool_that_is_not_fair_nobody_is_of_a_party() -> None:
    assert Claim("a").party("off") == ""


@pytest.mark.parametrize(("told", "expected"), [("7", "audit 7"), ("4294967295", ""), ("", ""), ("x", "")])
def test_the_login_session_is_the_audits_or_that_of_the_process(
    told: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "text", lambda path: told)

    assert process.login_session(17) == (expected or f"{process.namespace()} 17")
