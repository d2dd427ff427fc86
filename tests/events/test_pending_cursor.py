"""Nothing that was committed lies below what the hint calls settled, whoever commits when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.pending_cursor import IdSnapshot, PendingCursor

STEPS = st.lists(
    st.one_of(
        st.just(("begin", 0)),
        st.tuples(st.just("commit"), st.integers(0, 5)),
        st.tuples(st.just("look"), st.integers(1, 3)),
        st.just(("ask", 0)),
        st.just(("sweep", 0)),
    ),
    max_size=60,
)


class Table:
    """Transactions that take their number, then their id, and commit in any order."""

    def __init__(self) -> None:
        self.number = self.last_id = 0
        self.open: dict[int, int] = {}
        self.waiting: set[int] = set()

    def begin(self) -> None:
        self.number += 1
        self.last_id += 1
        self.open[self.number] = self.last_id

    def commit(self, which: int) -> None:
        if self.open:
            self.waiting.add(self.open.pop(sorted(self.open)[which % len(self.open)]))

    def moment(self) -> IdSnapshot:
        return IdSnapshot(self.last_id, min(self.open, default=self.number + 1), self.number + 1)

    def take(self, after: int, most: int) -> int:
        taken = sorted(number for number in self.waiting if number > after)[:most]
        self.waiting -= {*taken}
        return max([after, *taken])


@given(STEPS)
def test_nothing_committed_is_ever_below_what_is_settled(steps: list[tuple[str, int]]) -> None:
    table, hint, asked = Table(), PendingCursor(), None
    for step, number in steps:
        if step == "begin":
            table.begin()
        elif step == "commit":
            table.commit(number)
        elif step == "look":
            hint.note_seen(table.take(hint.after, number))
        elif step == "ask":
            asked = table.moment()
        elif asked:
            # Others begin and commit between the question and the sweep.
            hint.note_seen(table.take(hint.sweep(asked), 1_000))
            hint.swept(asked)

        assert all(waiting > hint.settled for waiting in table.waiting)

    for _ in range(4):
        moment = table.moment()
        hint.note_seen(table.take(hint.sweep(moment), 1_000))
        hint.swept(moment)
    assert not table.waiting
    assert table.open or hint.settled == table.last_id


def test_a_restored_database_is_looked_at_from_its_beginning() -> None:
    hint = PendingCursor()
    for moment in (IdSnapshot(100, 50, 50), IdSnapshot(100, 51, 51), IdSnapshot(100, 52, 52), IdSnapshot(100, 53, 53)):
        hint.sweep(moment)
        hint.swept(moment)
    assert hint.settled == 100

    hint.sweep(IdSnapshot(60, 54, 54))

    assert (hint.settled, hint.after) == (0, 0)
