"""Who calls: daemons prove themselves with the cluster's secret, users with a short-lived token that a daemon on their host gave them.

Without TLS this holds on loopback and on Unix sockets only, and `server` serves nowhere else. Whoever holds the secret may speak for everybody.
"""

import base64
import binascii
import grp
import hashlib
import hmac
import json
import os
import pwd
import secrets
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cranekit.errors import CraneError, ErrorCode

SECRET_BYTES = 32
"""Length of a new secret; shorter ones are refused."""

MAX_SECRET_FILE_BYTES = 4096
TOKEN_LIFETIME_S = 300
CLOCK_SKEW_S = 30
"""How far a token may come from the future."""

SECRET_KEY = "crane-cluster-secret"  # noqa: S105 - the name of a header
ROLE_KEY = "crane-role"
TOKEN_KEY = "authorization"  # noqa: S105 - the name of a header

Metadata = tuple[tuple[str, str], ...]


class Role(Enum):
    NODE = "node"
    """A craned; its name is the node's."""
    SCHEDULER = "scheduler"
    CONTROLLER = "controller"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a call comes from. All but `role` and `name` are set for users only."""

    role: Role
    name: str = ""
    uid: int = -1
    gid: int = -1
    user: str = ""
    groups: tuple[int, ...] = ()
    group: str = ""
    """Name of `gid`; empty where it has none."""


def create_secret(path: Path) -> bytes:
    """Makes a new secret file, mode 0600. Fails with FileExistsError rather than replace one."""
    secret = secrets.token_hex(SECRET_BYTES).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret + b"\n")
    return secret


def read_secret(path: Path) -> bytes:
    """The cluster's secret.

    Raises:
        CraneError: FAILED_PRECONDITION, the file is missing, not ours, open to others, or too short.
    """

    def refuse(what: str) -> CraneError:
        return CraneError(ErrorCode.FAILED_PRECONDITION, f"cluster secret {path}: {what}")

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise refuse("expected a regular file")
        if status.st_uid not in (0, os.geteuid()):
            raise refuse(f"owned by uid {status.st_uid}: expected root or uid {os.geteuid()}")
        if status.st_mode & 0o077:
            raise refuse(f"mode {stat.S_IMODE(status.st_mode):04o}: expected 0600 or stricter")
        secret = file.read(MAX_SECRET_FILE_BYTES).strip()
    if len(secret) < SECRET_BYTES:
        raise refuse(f"{len(secret)} bytes: expected at least {SECRET_BYTES}")
    return secret


def daemon_metadata(secret: bytes, role: Role, name: str = "") -> Metadata:
    """What a daemon or scheduler sends with every call."""
    return ((SECRET_KEY, _fingerprint(secret)), (ROLE_KEY, f"{role.value}/{name}" if name else role.value))


def user_metadata(token: str) -> Metadata:
    """What is sent on behalf of a user."""
    return ((TOKEN_KEY, f"Bearer {token}"),)


def identity_of_peer(uid: int, gid: int) -> Identity:
    """A local user by the name service, with supplementary groups; a uid it does not know is its own name."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Identity(Role.USER, uid=uid, gid=gid, user=str(uid), group=_group_name(gid))
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Identity(Role.USER, uid=uid, gid=entry.pw_gid, user=entry.pw_name, groups=groups, group=_group_name(entry.pw_gid))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def group_members(name: str) -> frozenset[str]:
    """The users a group lists; empty for an unknown group."""
    try:
        return frozenset(grp.getgrnam(name).gr_mem)
    except KeyError:
        return frozenset()


class TokenMinter:
    """Makes tokens that any daemon with the same secret accepts."""

    def __init__(self, secret: bytes, audience: str, lifetime_s: int = TOKEN_LIFETIME_S) -> None:
        self._key = _token_key(secret)
        self._audience = audience
        self._lifetime_s = lifetime_s

    def mint(self, who: Identity) -> str:
        """A token for a user, valid for the lifetime from now."""
        now = int(time.time())
        claims = {
            "uid": who.uid,
            "gid": who.gid,
            "user": who.user,
            "groups": list(who.groups),
            "group": who.group,
            "iat": now,
            "exp": now + self._lifetime_s,
            "aud": self._audience,
        }
        payload = _encode(json.dumps(claims, separators=(",", ":")).encode())
        return f"{payload}.{_encode(_sign(self._key, payload))}"


class Authenticator:
    """Finds out who calls from a call's metadata."""

    def __init__(self, secret: bytes, audience: str) -> None:
        self._fingerprint = _fingerprint(secret)
        self._key = _token_key(secret)
        self._audience = audience

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """The caller.

        Raises:
            CraneError: UNAUTHENTICATED, with what is wrong with the credentials.
        """
        entries = {key: value for key, value in metadata if isinstance(value, str)}
        if (offered := entries.get(SECRET_KEY)) is not None:
            if not hmac.compare_digest(offered.encode(), self._fingerprint.encode()):
                raise _unauthenticated("the cluster secret is not this cluster's")
            return _daemon(entries.get(ROLE_KEY, ""))
        authorization = entries.get(TOKEN_KEY, "")
        if not authorization.startswith("Bearer "):
            raise _unauthenticated("no credentials: expected a token or the cluster secret")
        return self._user(authorization.removeprefix("Bearer "))

    def _user(self, token: str) -> Identity:
        payload, dot, signature = token.partition(".")
        if not dot or not hmac.compare_digest(_encode(_sign(self._key, payload)).encode(), signature.encode()):
            raise _unauthenticated("the token is not signed by this cluster")
        try:
            claims = json.loads(_decode(payload))
            identity = Identity(
                Role.USER,
                uid=int(claims["uid"]),
                gid=int(claims["gid"]),
                user=str(claims["user"]),
                groups=tuple(int(group) for group in claims["groups"]),
                group=str(claims.get("group", "")),
            )
            issued, expires, audience = int(claims["iat"]), int(claims["exp"]), claims["aud"]
        except (ValueError, KeyError, TypeError) as error:
            raise _unauthenticated("the token is malformed") from error
        now = time.time()
        if audience != self._audience:
            raise _unauthenticated(f"the token is for cluster {audience!r}, this is {self._audience!r}")
        if not issued - CLOCK_SKEW_S <= now <= expires:
            raise _unauthenticated("the token has expired")
        return identity


def _daemon(text: str) -> Identity:
    word, _, name = text.partition("/")
    try:
        role = Role(word)
    except ValueError:
        role = Role.USER
    if role is Role.USER or (role is Role.NODE) != bool(name):
        raise _unauthenticated(f"role {text!r}: expected node/NAME, scheduler or controller")
    return Identity(role, name=name)


def _fingerprint(secret: bytes) -> str:
    """What is sent in the secret's place."""
    return hashlib.sha256(b"crane-cluster:" + secret).hexdigest()


def _token_key(secret: bytes) -> bytes:
    return hashlib.sha256(b"crane-token:" + secret).digest()


def _sign(key: bytes, payload: str) -> bytes:
    return hmac.new(key, payload.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _unauthenticated(message: str) -> CraneError:
    return CraneError(ErrorCode.UNAUTHENTICATED, message)
