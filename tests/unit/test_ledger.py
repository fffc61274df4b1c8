"""Prices, the fold of charges, and budgets."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.money.budget import BudgetKeeper, Hold
from harness.money.ledger import GpuMeter, Ledger, Prices, bound, check_priced, is_priced, price
from harness.records import Budget, Charge, Purpose, Usage
from harness.trace import Charged, Planned, Replied
from tasks.errors import BudgetExceeded, InputError

OWN = Prices("mine", input=1.0, cache_read=0.1, output=4.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def charge(
    usd: float | None,
    *,
    attempt: int | None = 0,
    purpose: Purpose = "act",
    model: str = "m",
    usage: Usage | None = None,
    answered: bool = True,
) -> Charge:
    source = "alias" if usd is not None else "unknown"
    return Charge(attempt, purpose, model, usage or Usage(input=10, output=5), usd, source, 1.0, answered)


# Prices


def test_the_users_prices_hold_for_every_part_of_the_usage() -> None:
    usage = Usage(input=1_000_000, cache_read=1_000_000, cache_write=1_000_000, output=500_000, reasoning=500_000)
    assert list(price(OWN, usage, 0.0)) == [pytest.approx(1.0 + 0.1 + 1.0 + 4.0), "alias"]


def test_the_users_prices_win_over_the_table() -> None:
    openai = Prices("gpt-4o-mini", lookup="openai/gpt-4o-mini", input=7.0, output=7.0)
    assert price(openai, Usage(input=1_000_000), 0.0) == (7.0, "alias")


def test_the_table_prices_cached_tokens_lower_and_reasoning_as_output() -> None:
    model = Prices("gpt-4o-mini", lookup="openai/gpt-4o-mini")
    fresh, source = price(model, Usage(input=1_000_000), 0.0)
    cached, _ = price(model, Usage(cache_read=1_000_000), 0.0)
    output, _ = price(model, Usage(output=1_000_000), 0.0)
    reasoning, _ = price(model, Usage(reasoning=1_000_000), 0.0)
    assert source == "genai-prices"
    assert fresh is not None and cached is not None and output is not None
    assert 0 < cached < fresh < output
    assert reasoning == output


def test_prices_are_looked_up_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert is_priced(Prices("deepseek-chat", lookup="deepseek/deepseek-chat"))
    assert not is_priced(Prices("no-such-model", lookup="openai/no-such-model"))


def test_a_vendors_url_is_enough_to_find_its_price() -> None:
    assert is_priced(Prices("gpt-4o-mini", base_url="https://api.openai.com/v1"))


def test_a_vendors_model_on_ones_own_machine_does_not_get_the_vendors_price() -> None:
    assert price(Prices("gpt-4o-mini", base_url="http://127.0.0.1:8000/v1"), Usage(input=10), 1.0) == (None, "unknown")


def test_the_table_is_not_loaded_for_models_that_no_vendor_serves() -> None:
    asks = (
        "print([is_priced(Prices('m', base_url=f'http://{host}/v1')) for host in hosts], 'genai_prices' in sys.modules)"
    )
    begins = "import sys; from harness.money.ledger import Prices, is_priced; hosts = sys.argv[1:]; "
    for hosts, loaded in (
        (["127.0.0.1:1", "localhost", "[::1]:80", "gpu7:8000", "10.0.0.4"], False),
        (["a.example"], True),
    ):
        done = subprocess.run([sys.executable, "-c", begins + asks, *hosts], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"{[False] * len(hosts)} {loaded}"


def test_unknown_is_never_zero() -> None:
    assert price(Prices("x"), Usage(input=1), 1.0) == (None, "unknown")
    assert price(OWN, None, 1.0) == (None, "unknown")


def test_a_model_that_the_user_says_is_free_costs_nothing_even_without_usage() -> None:
    free = Prices("x", input=0.0, output=0.0)
    assert price(free, None, 1.0) == (0.0, "alias")


def test_a_gpu_costs_its_share_of_time() -> None:
    gpu = Prices("x", gpu_hour=3.6)
    assert list(price(gpu, None, 10.0)) == [pytest.approx(0.01), "gpu-hour"]


def test_shares_of_a_gpu_add_up_to_its_busy_time() -> None:
    clock = Clock()
    meter = GpuMeter(clock)
    first = meter.start()
    clock.now += 1
    second = meter.start()
    clock.now += 2
    a = meter.stop(first)
    clock.now += 3
    b = meter.stop(second)
    clock.now += 10
    assert a == pytest.approx(1 + 2 / 2)
    assert b == pytest.approx(2 / 2 + 3)
    assert a + b == pytest.approx(6)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 10)), max_size=40))
def test_shares_add_up_whatever_the_order_of_calls(steps: list[tuple[bool, float]]) -> None:
    clock = Clock()
    meter = GpuMeter(clock)
    marks: list[float] = []
    shares = busy = 0.0
    for begin, seconds in steps:
        if begin or not marks:
            marks.append(meter.start())
        else:
            shares += meter.stop(marks.pop(0))
        busy += seconds if marks else 0.0
        clock.now += seconds
    shares += sum(meter.stop(mark) for mark in marks)
    assert shares == pytest.approx(busy, abs=1e-6)


def test_the_bound_of_a_call_takes_nothing_as_cached_and_writing_a_cache_as_dearer() -> None:
    assert bound(OWN, 1_000_000, 1_000_000) == pytest.approx(5.0)
    assert bound(Prices("x", input=1.0, cache_write=1.25, output=0.0), 1_000_000, 0) == pytest.approx(1.25)
    assert bound(Prices("x"), 10, 10) is None


def test_a_money_cap_with_an_unknown_price_is_refused_unless_allowed() -> None:
    unknown = Prices("mystery")
    with pytest.raises(InputError, match="mystery"):
        check_priced([OWN, unknown], 1.0, allow_unknown=False)
    check_priced([OWN, unknown], 1.0, allow_unknown=True)
    check_priced([OWN, unknown], None, allow_unknown=False)
    check_priced([OWN, Prices("x", gpu_hour=1.0)], 1.0, allow_unknown=False)


# The ledger


def test_the_ledger_is_the_fold_of_all_charges_of_a_trace() -> None:
    events = [
        Planned(attempt=0, text="look"),
        Replied(attempt=0, key="0/plan", message={}, charge=charge(0.25, purpose="plan")),
        Charged(attempt=1, key="1/1", charge=charge(None, attempt=1, usage=Usage(), answered=False)),
        Replied(attempt=1, key="1/1", message={}, charge=charge(0.5, attempt=1, usage=Usage(1, 2, 3, 4, 5))),
        Replied(key="judge/0", message={}, charge=charge(1.0, attempt=None, purpose="judge", model="big")),
    ]
    ledger = Ledger.of(events)
    assert ledger.total.known_usd == 1.75
    assert ledger.total.usage == Usage(21, 2, 3, 14, 5)
    assert (ledger.total.calls, ledger.total.unanswered, ledger.total.unpriced) == (3, 1, 1)
    assert {k: line.known_usd for k, line in ledger.by_attempt.items()} == {"0": 0.25, "1": 0.5, "run": 1.0}
    assert {k: line.known_usd for k, line in ledger.by_purpose.items()} == {"plan": 0.25, "act": 0.5, "judge": 1.0}
    assert {k: line.known_usd for k, line in ledger.by_model.items()} == {"m": 0.75, "big": 1.0}


def test_the_parts_of_the_ledger_add_up_to_its_whole() -> None:
    ledger = Ledger.fold(charge(0.1 * k, attempt=k % 5, purpose="act" if k % 2 else "plan") for k in range(50))
    for part in (ledger.by_attempt, ledger.by_purpose, ledger.by_model):
        assert sum(line.known_usd for line in part.values()) == pytest.approx(ledger.total.known_usd)
        assert sum(line.calls for line in part.values()) == 50


def test_one_unknown_price_makes_the_sum_inexact_and_all_unknown_makes_it_unknown() -> None:
    some = Ledger.fold([charge(0.5), charge(None)])
    assert (some.total.usd, some.total.exact) == (0.5, False)
    none = Ledger.fold([charge(None), charge(None)])
    assert (none.total.usd, none.total.exact) == (None, False)
    empty = Ledger.fold([])
    assert (empty.total.usd, empty.total.exact) == (0.0, True)


def test_the_report_form_is_json_and_orders_attempts_by_number() -> None:
    cost = Ledger.fold([charge(0.5, attempt=k) for k in (10, 2, 0)]).to_json()
    assert list(cost["by_attempt"]) == ["0", "2", "10"]
    assert json.loads(json.dumps(cost))["usd"] == 1.5
    assert cost["exact"] is True


# Budgets


def test_a_call_that_does_not_fit_is_refused() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=1.0))
        (await keeper.reserve(0, 0.6, 10)).settle(charge(0.6))
        with pytest.raises(BudgetExceeded) as caught:
            await keeper.reserve(0, 0.5, 10)
        assert (caught.value.limit, caught.value.scope) == ("usd", "run")
        (await keeper.reserve(0, 0.4, 10)).release()

    asyncio.run(act())


def test_a_call_waits_while_only_reservations_stand_in_its_way() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=1.0))
        first = await keeper.reserve(0, 0.9, 10)
        second = asyncio.create_task(keeper.reserve(1, 0.9, 10))
        await asyncio.sleep(0.01)
        assert not second.done()
        first.settle(charge(0.05))
        assert (await second).usd == 0.9

    asyncio.run(act())


def test_a_waiting_call_is_refused_when_the_money_is_really_spent() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=1.0))
        first = await keeper.reserve(0, 0.9, 10)
        second = asyncio.create_task(keeper.reserve(1, 0.9, 10))
        third = asyncio.create_task(keeper.reserve(2, 0.1, 10))
        await asyncio.sleep(0.01)
        first.settle(charge(0.8))
        with pytest.raises(BudgetExceeded):
            await second
        assert isinstance(await third, Hold), "a smaller call behind it still fits"

    asyncio.run(act())


def test_waiting_calls_are_served_in_order() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(tokens=100))
        order: list[int] = []

        async def call(k: int) -> None:
            hold = await keeper.reserve(k, None, 60)
            order.append(k)
            await asyncio.sleep(0)
            hold.settle(charge(None, attempt=k, usage=Usage(input=1)))

        await asyncio.gather(*(call(k) for k in range(10)))
        assert order == list(range(10))
        with pytest.raises(BudgetExceeded):
            await keeper.reserve(None, None, 91)
        (await keeper.reserve(None, None, 90)).release()

    asyncio.run(act())


def test_the_cap_on_the_judge_holds_for_its_calls_alone_and_after_a_resume() -> None:
    async def act() -> None:
        budget = Budget(usd=2.0, judge_usd=0.5)
        keeper = BudgetKeeper(budget, [charge(0.25, attempt=None, purpose="judge")])
        (await keeper.reserve(0, 0.5, 10)).settle(charge(0.5))
        with pytest.raises(BudgetExceeded) as refused:
            await keeper.reserve(None, 0.375, 10)
        assert refused.value.scope == "judge"
        (await keeper.reserve(None, 0.25, 10)).settle(charge(0.25, attempt=None, purpose="judge"))
        with pytest.raises(BudgetExceeded):
            await keeper.reserve(None, 0.0, 10)
        (await keeper.reserve(1, 0.1, 10)).settle(charge(0.1))

    asyncio.run(act())


def test_a_cancelled_wait_leaves_no_trace() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=1.0))
        first = await keeper.reserve(0, 0.9, 10)
        second = asyncio.create_task(keeper.reserve(1, 0.9, 10))
        third = asyncio.create_task(keeper.reserve(2, 0.1, 10))
        await asyncio.sleep(0.01)
        assert not third.done(), "first come, first served"
        second.cancel()
        assert (await third).usd == 0.1
        first.release()
        assert (await keeper.reserve(3, 0.9, 10)).usd == 0.9

    asyncio.run(act())


def test_a_call_cancelled_in_the_moment_of_its_grant_gives_the_money_back() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=1.0))
        first = await keeper.reserve(0, 1.0, 10)
        second = asyncio.create_task(keeper.reserve(1, 1.0, 10))
        await asyncio.sleep(0.01)
        first.release()  # grants the second, whose task has not run since
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await asyncio.wait_for(keeper.reserve(2, 1.0, 10), 1)).usd == 1.0

    asyncio.run(act())


def test_an_attempts_cap_stops_only_that_attempt() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(attempt_usd=0.5))
        (await keeper.reserve(0, 0.5, 10)).settle(charge(0.5))
        with pytest.raises(BudgetExceeded) as caught:
            await keeper.reserve(0, 0.1, 10)
        assert (caught.value.limit, caught.value.scope) == ("usd", "attempt")
        (await keeper.reserve(1, 0.5, 10)).release()

    asyncio.run(act())


def test_an_unpriced_charge_counts_as_reserved_for_the_cap() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=1.0))
        (await keeper.reserve(0, 0.7, 10)).settle(charge(None, usage=Usage(), answered=False))
        with pytest.raises(BudgetExceeded):
            await keeper.reserve(0, 0.7, 10)

    asyncio.run(act())


@pytest.mark.parametrize("scope", ["run", "attempt"])
def test_time_runs_out(scope: str) -> None:
    async def act() -> None:
        clock = Clock()
        budget = Budget(seconds=60) if scope == "run" else Budget(attempt_seconds=60)
        keeper = BudgetKeeper(budget, clock=clock)
        keeper.start_attempt(0)
        clock.now += 59
        keeper.check(0)
        assert keeper.seconds_left(0) == pytest.approx(1)
        clock.now += 1
        with pytest.raises(BudgetExceeded) as caught:
            await keeper.reserve(0, None, 1)
        assert (caught.value.limit, caught.value.scope) == ("seconds", scope)

    asyncio.run(act())


def test_time_runs_out_while_waiting() -> None:
    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=1.0, seconds=0.1))
        await keeper.reserve(0, 1.0, 1)
        with pytest.raises(BudgetExceeded) as caught:
            await keeper.reserve(1, 1.0, 1)
        assert caught.value.limit == "seconds"

    asyncio.run(act())


def test_a_resumed_run_goes_on_from_what_is_spent() -> None:
    spent = [charge(0.4), charge(0.3, attempt=1), charge(None, attempt=1, usage=Usage(), answered=False)]
    keeper = BudgetKeeper(Budget(usd=2.0, attempt_usd=0.8, seconds=100), spent, elapsed=40)
    left = keeper.seconds_left()
    assert left is not None and 59 < left <= 60

    async def act() -> None:
        with pytest.raises(BudgetExceeded):
            await keeper.reserve(1, 0.2, 1)
        (await keeper.reserve(0, 0.2, 1)).release()
        with pytest.raises(BudgetExceeded, match="is spent and the next call"):
            await keeper.reserve(None, 0.91, 1)
        (await keeper.reserve(None, 0.89, 1)).release()  # the unpriced retry counts as the dearest call of its model

    asyncio.run(act())


@given(
    cap=st.floats(0.5, 5.0),
    calls=st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=60),
)
def test_the_cap_holds_whatever_is_asked_in_whatever_order(cap: float, calls: list[tuple[float, float]]) -> None:
    """Each call reserves an upper bound and uses a part of it; together they never pass the cap."""

    async def act() -> None:
        keeper = BudgetKeeper(Budget(usd=cap))
        spent = 0.0

        async def call(asked: float, part: float) -> None:
            nonlocal spent
            try:
                hold = await keeper.reserve(None, asked, 0)
            except BudgetExceeded:
                return
            await asyncio.sleep(0)
            hold.settle(charge(asked * part))
            spent += asked * part

        await asyncio.gather(*(call(*one) for one in calls))
        assert spent <= cap * (1 + 1e-9)
        if spent < cap:
            (await keeper.reserve(None, 0.0, 0)).release()

    asyncio.run(act())
