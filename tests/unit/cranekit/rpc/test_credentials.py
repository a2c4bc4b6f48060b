import os
import time
from pathlib import Path

import pytest

from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc import credentials
from cranekit.rpc.credentials import (
    Authenticator,
    Identity,
    Role,
    TokenMinter,
    create_secret,
    daemon_metadata,
    identity_of_peer,
    read_secret,
    user_metadata,
)

SECRET = b"s" * 32
USER = Identity(Role.USER, uid=1_000, gid=100, user="alice", groups=(100, 200), group="users")


def _refused(metadata: credentials.Metadata, match: str) -> None:
    with pytest.raises(CraneError, match=match) as caught:
        Authenticator(SECRET, "alpha").authenticate(metadata)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


def test_a_new_secret_reads_back_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert create_secret(path) == read_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        create_secret(path)


def test_secrets_that_are_refused(tmp_path: Path) -> None:
    path, link = tmp_path / "secret", tmp_path / "link"
    with pytest.raises(CraneError, match="cannot be read"):
        read_secret(path)
    create_secret(path)
    link.symlink_to(path)
    with pytest.raises(CraneError, match="cannot be read"):
        read_secret(link)
    path.chmod(0o640)
    with pytest.raises(CraneError, match="0600 or stricter"):
        read_secret(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(CraneError, match="expected at least"):
        read_secret(path)


@pytest.mark.parametrize(("role", "name"), [(Role.NODE, "cn01"), (Role.SCHEDULER, ""), (Role.CONTROLLER, "")])
def test_daemons_are_who_they_say(role: Role, name: str) -> None:
    assert Authenticator(SECRET, "alpha").authenticate(daemon_metadata(SECRET, role, name)) == Identity(role, name=name)


def test_users_by_token() -> None:
    token = TokenMinter(SECRET, "alpha").mint(USER)
    assert Authenticator(SECRET, "alpha").authenticate(user_metadata(token)) == USER


def test_what_is_refused() -> None:
    token = TokenMinter(SECRET, "alpha").mint(USER)
    _refused((), "no credentials")
    _refused(daemon_metadata(b"x" * 32, Role.NODE, "cn01"), "not this cluster's")
    _refused(daemon_metadata(SECRET, Role.NODE), "expected node/NAME")
    _refused(daemon_metadata(SECRET, Role.CONTROLLER, "x"), "expected node/NAME")
    _refused(daemon_metadata(SECRET, Role.USER), "expected node/NAME")
    _refused(user_metadata(token[:-2] + ("AA" if token[-2:] != "AA" else "BB")), "not signed")
    _refused(user_metadata("x" + token), "not signed")
    _refused(user_metadata("nonsense"), "not signed")
    _refused(user_metadata(TokenMinter(b"x" * 32, "alpha").mint(USER)), "not signed")
    _refused(user_metadata(TokenMinter(SECRET, "beta").mint(USER)), "for cluster 'beta'")
    _refused(user_metadata(TokenMinter(SECRET, "alpha", lifetime_s=-1).mint(USER)), "expired")


def test_a_token_from_the_future_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 3_600
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        token = TokenMinter(SECRET, "alpha").mint(USER)
    _refused(user_metadata(token), "token")


def test_peers_are_known_by_the_name_service() -> None:
    assert identity_of_peer(os.geteuid(), os.getegid()).uid == os.geteuid()
    unknown = identity_of_peer(3_999_999_999, 7)
    assert (unknown.user, unknown.gid, unknown.groups) == ("3999999999", 7, ())
