"""Requests that were carried out, by which their repeats are recognised: kept in the store, bounded in number and by age."""

from collections.abc import Callable, Iterable, Sequence

from cranectld.store import RequestRecord, Store


class RequestLog:
    """What was answered to each request id. The oldest are forgotten first."""

    def __init__(self, store: Store, limit: Callable[[], int]) -> None:
        """`limit`: how many are remembered at most."""
        self._store = store
        self._limit = limit
        self._records: dict[str, RequestRecord] = {}

    def restore(self, records: Iterable[RequestRecord]) -> None:
        """Takes over what the store kept, oldest first."""
        self._records |= {record.request_id: record for record in records}

    def answered(self, request_id: str) -> tuple[int, ...] | None:
        """What was answered to it before; None for a new one, and for one without an id."""
        record = self._records.get(request_id)
        return None if record is None else record.numbers

    def remember(self, request_id: str, numbers: Sequence[int], at: float) -> None:
        """Notes what is answered to a request now. One without an id is not remembered."""
        if not request_id:
            return
        record = RequestRecord(request_id, tuple(numbers), at)
        self._records[request_id] = record
        self._store.put_request(record)
        while len(self._records) > self._limit():
            self.forget(next(iter(self._records)))

    def forget(self, request_id: str) -> None:
        """The next request with this id is a new one."""
        if self._records.pop(request_id, None) is not None:
            self._store.drop_request(request_id)

    def expire(self, before: float) -> None:
        """Forgets those of an earlier time (seconds since the epoch) here; the store's own expiry forgets them there."""
        while self._records:
            oldest = next(iter(self._records.values()))
            if oldest.at >= before:
                return
            del self._records[oldest.request_id]
