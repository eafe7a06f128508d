"""The non-INVITE client transaction, with time handed in."""

from __future__ import annotations

import pytest

from controlone_ha.sip.message import Response
from controlone_ha.sip.transaction import (
    ClientTransaction,
    ClientTransactions,
    Ended,
    Ending,
    Event,
    Send,
    SipTimers,
    TransactionState,
)

RFC = SipTimers()


def response(status: int, branch: str = "z9hG4bK1", method: str = "OPTIONS") -> Response:
    headers = [("Via", f"SIP/2.0/UDP h;branch={branch}"), ("CSeq", f"1 {method}")]
    return Response(headers, b"", status, "")


def begin(
    timers: SipTimers, now: float = 0.0
) -> tuple[ClientTransactions[str], ClientTransaction[str]]:
    transactions: ClientTransactions[str] = ClientTransactions()
    return transactions, transactions.start("z9hG4bK1", "OPTIONS", b"packet", "t", now, timers)


def run(transactions: ClientTransactions[str], until: float) -> list[tuple[float, Event[str]]]:
    """Wake the transactions exactly when they want to be woken."""
    log: list[tuple[float, Event[str]]] = []
    while (due := transactions.next_due()) is not None and due <= until:
        log.extend((due, event) for event in transactions.advance(due))
    return log


def test_timer_e_doubles_up_to_t2_and_timer_f_ends_after_64_t1() -> None:
    transactions, transaction = begin(RFC)
    log = run(transactions, 100.0)
    assert [round(when, 3) for when, event in log if isinstance(event, Send)] == [
        0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5,
    ]  # fmt: skip
    assert log[-1] == (32.0, Ended(transaction, Ending.TIMEOUT))
    assert transaction.sent == 11
    assert len(transactions) == 0


def test_a_probe_caps_timer_f() -> None:
    transactions, transaction = begin(SipTimers(t1=0.25, timer_f=2.0, timer_k=0.0), now=10.0)
    log = run(transactions, 100.0)
    assert [when for when, _ in log] == [10.25, 10.75, 11.75, 12.0]
    assert transaction.state is TransactionState.TERMINATED


def test_a_provisional_answer_slows_retransmission_to_t2() -> None:
    transactions, transaction = begin(RFC)
    assert transactions.receive(response(100), 0.1) is None
    assert transaction.state is TransactionState.PROCEEDING
    log = run(transactions, 9.0)
    assert [when for when, _ in log] == [0.5, 4.5, 8.5]


def test_a_final_answer_ends_it_and_timer_k_absorbs_copies() -> None:
    transactions, transaction = begin(RFC)
    assert transactions.receive(response(200), 0.2) == Ended(transaction, Ending.ANSWER)
    assert transaction.state is TransactionState.COMPLETED
    assert transactions.receive(response(200), 0.3) is None
    assert transactions.next_due() == pytest.approx(5.2)
    assert len(transactions) == 1
    assert transactions.advance(5.3) == []
    assert len(transactions) == 0


def test_without_timer_k_it_is_forgotten_at_once() -> None:
    transactions, transaction = begin(SipTimers(timer_k=0.0))
    assert transactions.receive(response(404), 0.2) == Ended(transaction, Ending.ANSWER)
    assert len(transactions) == 0
    assert transactions.next_due() is None


@pytest.mark.parametrize(
    "stray",
    [
        response(200, branch="z9hG4bK2"),
        response(200, method="INVITE"),
        Response([("CSeq", "1 OPTIONS")], b"", 200, ""),
        Response([("Via", "nonsense"), ("CSeq", "x")], b"", 200, ""),
    ],
)
def test_an_answer_of_another_transaction_changes_nothing(stray: Response) -> None:
    transactions, transaction = begin(RFC)
    assert transactions.receive(stray, 0.1) is None
    assert transaction.state is TransactionState.TRYING


def test_a_transport_error_ends_it_once() -> None:
    transactions, transaction = begin(RFC)
    assert transactions.fail(transaction, "refused") == Ended(transaction, Ending.TRANSPORT)
    assert transaction.error == "refused"
    assert transactions.fail(transaction, "again") is None
    assert transactions.receive(response(200), 1.0) is None
    assert transactions.next_due() is None


def test_a_cancelled_one_fires_no_timer_and_matches_nothing() -> None:
    transactions, transaction = begin(RFC)
    transactions.cancel(transaction)
    assert run(transactions, 100.0) == []
    assert transactions.receive(response(200), 1.0) is None


def test_after_a_gap_there_is_one_retransmission_and_no_burst() -> None:
    transactions, _ = begin(RFC)
    assert len(transactions.advance(20.0)) == 1
    assert transactions.next_due() == pytest.approx(21.0)


def test_timers_of_many_transactions_fire_in_order() -> None:
    transactions: ClientTransactions[int] = ClientTransactions()
    timers = SipTimers(t1=1.0, timer_f=1.5, timer_k=0.0)
    for number in range(100):
        transactions.start(f"z9hG4bK{number}", "OPTIONS", b"", number, number * 0.01, timers)
    events = transactions.advance(3.0)
    assert [event.transaction.destination for event in events] == list(range(100))
    assert len(transactions) == 0


@pytest.mark.parametrize("values", [{"t1": 0.0}, {"t1": 5.0}, {"timer_f": 0.0}, {"timer_k": -1.0}])
def test_timers_that_make_no_sense_cannot_be_made(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="T1|Timer"):
        SipTimers(**values)


def test_a_branch_in_use_and_an_invite_are_programming_errors() -> None:
    transactions, _ = begin(RFC)
    with pytest.raises(ValueError, match="in use"):
        transactions.start("z9hG4bK1", "OPTIONS", b"", "t", 0.0, RFC)
    with pytest.raises(ValueError, match="non-INVITE"):
        transactions.start("z9hG4bK2", "INVITE", b"", "t", 0.0, RFC)
