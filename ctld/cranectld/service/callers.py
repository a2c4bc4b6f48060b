"""Who calls: the identity that the interceptor found in the call's credentials, checked for its role."""

from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Identity, Role
from cranekit.rpc.interceptors import current_identity


def caller(*roles: Role) -> Identity:
    """The caller; a user unless roles are given.

    Raises:
        CraneError: PERMISSION_DENIED, another role.
    """
    identity = current_identity()
    wanted = roles or (Role.USER,)
    if identity.role not in wanted:
        names = " or ".join(role.value for role in wanted)
        raise CraneError(
            ErrorCode.PERMISSION_DENIED, f"this call is for a {names}; the credentials are of a {identity.role.value}"
        )
    return identity
