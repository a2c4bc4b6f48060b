"""Questions to services of the host that may take their time, or never answer, such as the name service: asked beside the event loop."""

import asyncio
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cranekit.errors import CraneError, ErrorCode

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_UNDER_WAY = 16


class InquiryError(CraneError):
    """No answer: says why."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, message, retryable=True)


class Inquiries(Generic[K, V]):
    """Asks each question once at a time, in a thread of its own; an answer is not kept.

    The threads of questions that nobody ever answers stay, at most `max_under_way`; they do not keep the process from ending.
    """

    def __init__(self, service: str, answer: Callable[[K], V], *, within_s: float, max_under_way: int = MAX_UNDER_WAY) -> None:
        """`answer` blocks, and raises OSError where the service fails; `service` is how messages call it."""
        self._service = service
        self._answer = answer
        self._within_s = within_s
        self._max_under_way = max_under_way
        self._under_way: dict[K, asyncio.Future[V]] = {}

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    async def ask(self, question: K) -> V:
        """The answer. Cancelling stops the waiting only.

        Raises:
            InquiryError: none in time, an error, or too many questions wait.
        """
        asked = self._under_way.get(question)
        if asked is None:
            if len(self._under_way) >= self._max_under_way:
                raise InquiryError(f"{self._service} does not answer: {len(self._under_way)} questions wait")
            asked = self._begin(question)
        try:
            async with asyncio.timeout(self._within_s):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise InquiryError(f"{self._service} did not answer within {self._within_s:g} s") from None
        except OSError as error:
            raise InquiryError(f"{self._service} failed: {error.strerror or error}") from error

    def _begin(self, question: K) -> asyncio.Future[V]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[V] = loop.create_future()
        self._under_way[question] = answer

        def settle(take: Callable[[], None]) -> None:
            del self._under_way[question]
            take()

        def fail(error: BaseException) -> None:
            answer.set_exception(error)
            # Whoever asked may have gone.
            answer.exception()

        def work() -> None:
            try:
                value = self._answer(question)
            except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
                told = _bound(fail, error)
            else:
                told = _bound(answer.set_result, value)
            try:
                loop.call_soon_threadsafe(settle, told)
            except RuntimeError:
                # The daemon has ended meanwhile.
                return

        threading.Thread(target=work, name=f"asks {self._service}", daemon=True).start()
        return answer


def _bound(call: Callable[[V], None], value: V) -> Callable[[], None]:
    return lambda: call(value)
