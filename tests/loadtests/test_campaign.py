"""Rounds, ratios and notes, with servers whose limits are known, and without waiting for time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fake_service import fake_service
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from simulated import Queues, Simulated, nothing, simulated_campaign

from loadtests import results
from loadtests.campaign import Campaign, Contender, passes
from loadtests.capacity import Interval
from loadtests.errors import LoadTestError
from loadtests.measurement import Histogram, Measurement
from loadtests.plan import FEWEST_ROUNDS, Plan
from loadtests.sender import Load
from loadtests.target import running_service

PLAN = Plan(slo_ms=100, fractions=(0.5, 1.1))


def run(limits: dict[str, float], plan: Plan = PLAN, *others: str) -> Campaign:
    with fake_service() as server:
        campaign = simulated_campaign(plan, Simulated(limits), server.url, others)
        campaign.run(nothing)
    return campaign


def test_capacities_and_ratios_are_those_of_the_servers() -> None:
    campaign = run({"dense": 40.0, "sparse": 100.0, "peer": 25.0}, PLAN, "peer")
    for name, limit in (("dense", 40), ("sparse", 100), ("peer", 25)):
        assert campaign.capacities()[name].value == pytest.approx(limit, rel=0.1)
    ratios = campaign.ratios()
    assert {name: set(against) for name, against in ratios.items()} == {
        "dense": {"peer"},
        "sparse": {"dense", "peer"},
    }
    assert ratios["sparse"]["dense"].value == pytest.approx(2.5, rel=0.1)
    assert ratios["sparse"]["peer"].value == pytest.approx(4, rel=0.1)
    assert campaign.notes == {}


def test_windows_alternate_and_all_get_the_same_texts_and_times() -> None:
    limits = {"dense": 40.0, "sparse": 100.0}
    with fake_service() as server:
        simulated = Simulated(limits)
        simulated_campaign(PLAN, simulated, server.url).run(nothing)
    searched = [load for load in simulated.loads if load.give_up_ms is not None]
    assert len(searched) >= 2 * FEWEST_ROUNDS
    rounds = list(zip(searched[::2], searched[1::2], strict=True))
    assert all({a.variant, b.variant} == set(limits) for a, b in rounds)
    assert all(first.seed == second.seed for first, second in rounds)
    assert len({first.seed for first, _ in rounds}) == len(rounds)
    assert {first.variant for first, _ in rounds} == set(limits)  # in turn


def test_rounds_go_on_until_the_ratio_is_known_well() -> None:
    campaign = run({"dense": 40.0, "sparse": 100.0}, Plan(slo_ms=100, budget=1e9, fractions=()))
    assert campaign.rounds >= FEWEST_ROUNDS
    assert campaign.ratios()["sparse"]["dense"].half_width <= 0.05


@pytest.mark.parametrize("budget", [75, 200, 480])
@pytest.mark.parametrize("slow", [6.0, 20.0])
def test_a_test_keeps_to_its_budget(budget: float, slow: float) -> None:
    """Four contenders, two of them slow, which needs long windows."""
    limits = {"dense": 120.0, "sparse": 180.0, "peer": slow, "second": 2 * slow}
    queues = Queues(limits, seed=1)
    with fake_service() as server:
        plan = Plan(slo_ms=1000, budget=budget, precision=0)
        campaign = simulated_campaign(plan, queues, server.url, ("peer", "second"))
        campaign.run(nothing)
    assert 0.7 * budget < queues.now < 1.1 * budget
    assert campaign.rounds >= FEWEST_ROUNDS
    assert set(campaign.capacities()) == set(limits)
    assert ("the budget" in campaign.notes) is (campaign.plan != plan.for_all(limits))
    if budget == 75:
        assert "raise --budget for sharper answers" in campaign.notes["the budget"]


def test_windows_of_all_contenders_have_one_length_that_does_for_the_slowest() -> None:
    limits = {"dense": 300.0, "peer": 50.0}
    with fake_service() as server:
        simulated = Simulated(limits)
        plan = Plan(slo_ms=100, budget=1e4)
        campaign = simulated_campaign(plan, simulated, server.url, ("peer",))
        campaign.run(nothing)
    sent = [load for load in simulated.loads if load.arrivals != "even"]
    near = [load for load in sent if load.rate > 0.75 * limits[load.variant]]
    assert {load.seconds for load in near} == {10.0} == {campaign.plan.seconds}
    assert all(load.rate * load.seconds >= 300 for load in near)
    assert max(load.seconds for load in sent) == 15.0  # the curve, at low rates
    assert campaign.notes == {}  # nothing was cut


@given(
    rates=st.lists(st.floats(0.1, 1e4), min_size=1, max_size=7),
    seconds=st.floats(0.1, 20),
    rest=st.floats(1, 1e4),
)
def test_the_length_of_windows_is_one_that_another_run_comes_to_as_well(
    rates: list[float], seconds: float, rest: float
) -> None:
    plan = Plan(seconds=seconds)
    saturated = {str(number): rate for number, rate in enumerate(rates)}
    whole = plan.for_all(saturated)
    assert whole.seconds / seconds == pytest.approx(round(whole.seconds / seconds))
    assert seconds <= whole.seconds <= whole.seconds * whole.stretch <= 1.001 * 3 * seconds
    assert plan.shortest <= plan.cut_to(rest, saturated).seconds <= whole.seconds


def test_a_budget_that_is_too_short_is_refused_with_the_least() -> None:
    plan = Plan(budget=20)
    with pytest.raises(LoadTestError, match=r"20 s is too short: 7 need \d+ s at least") as error:
        simulated_campaign(plan, Simulated(dict.fromkeys("abcdefg", 1.0)))
    assert f" {plan.least(7):.0f} s" in str(error.value)
    simulated_campaign(plan, Simulated({"sparse": 1.0}))


def test_an_objective_that_load_hardly_decides_is_said() -> None:
    """Long texts alone take about as long as the objective allows."""
    queues = Queues({"dense": 140.0, "peer": 40.0}, seed=0)
    with fake_service() as server:
        plan = Plan(slo_ms=200, budget=900, precision=0)
        campaign = simulated_campaign(plan, queues, server.url, ("peer",))
        campaign.run(nothing)
    assert "peer: windows pass and fail over a wide range of rates" in campaign.notes["peer"]
    assert "dense" not in campaign.notes


def test_the_curve_is_drawn_around_each_capacity() -> None:
    campaign = run({"dense": 40.0, "sparse": 100.0})
    for name, found in campaign.capacities().items():
        curve = [w for w in campaign.windows if w.contender == name and w.phase == "curve"]
        assert [w.rate / found.value for w in curve] == pytest.approx([0.5, 1.1], rel=0.02)


def test_a_server_that_meets_the_objective_at_no_rate_is_left_out_with_a_note() -> None:
    campaign = run({"dense": 0.0, "sparse": 100.0})
    assert set(campaign.capacities()) == {"sparse"}
    assert "dense meets no objective of 100 ms" in campaign.notes["dense"]
    assert "raise --slo-ms" in campaign.notes["dense"]
    assert campaign.ratios() == {}


def test_where_no_server_meets_the_objective_the_test_ends() -> None:
    with pytest.raises(LoadTestError, match=r"sparse meets no objective of 100 ms, even at"):
        run({"sparse": 0.0})


def test_a_server_that_answers_nothing_right_ends_the_test() -> None:
    simulated = Simulated({"sparse": 1.0}, fault="HTTP 500: broken")
    with fake_service() as server:
        campaign = simulated_campaign(PLAN, simulated, server.url)
        with pytest.raises(LoadTestError, match="all 1,000 requests to sparse failed; 1,000 of"):
            campaign.run(nothing)
    assert len(campaign.windows) == 1


class WarmingUp(Simulated):
    """Carries `growth` times as much in each window of its warm-up as in the one before."""

    def __init__(self, limits: dict[str, float], growth: float, windows: int) -> None:
        super().__init__(limits)
        self.growth, self.cold = growth, windows

    def run(self, load: Load, **options: Any) -> Measurement:
        found = super().run(load, **options)
        if load.arrivals == "even" and self.cold > 0:
            found.right = round(found.right / self.growth**self.cold)
            self.cold -= 1
        return found


@pytest.mark.parametrize(
    ("windows", "budget", "warm_ups", "noted"),
    [
        (0, 600, 2, False),
        (1, 600, 3, False),
        (4, 600, 6, False),
        (9, 600, 6, True),
        (9, 60, 4, True),
    ],
)
def test_a_server_is_warmed_up_until_it_carries_no_more(
    windows: int, budget: float, warm_ups: int, noted: bool
) -> None:
    plan = Plan(slo_ms=100, fractions=(), budget=budget)
    with fake_service() as server:
        warming = WarmingUp({"sparse": 100.0}, growth=1.2, windows=windows)
        campaign = simulated_campaign(plan, warming, server.url)
        campaign.run(nothing)
    assert sum(window.phase == "warm-up" for window in campaign.windows) == warm_ups
    assert ("sparse, warming up" in campaign.notes) is noted
    if noted:
        assert "was not steady yet" in campaign.notes["sparse, warming up"]


@pytest.mark.parametrize(
    ("due", "sent", "faults", "noted"),
    [(500, 50, 0, True), (500, 500, 0, False), (500, 50, 9, False), (50, 50, 0, False)],
)
def test_requests_that_wait_for_a_connection_are_told_from_a_slow_server(
    due: float, sent: float, faults: int, noted: bool
) -> None:
    class Waiting(Simulated):
        def run(self, load: Load, **options: Any) -> Measurement:
            found = super().run(load, **options)
            if load.arrivals != "even" and load.rate > 30:
                found.latency, found.service = Histogram(), Histogram()
                found.latency.record(due)
                found.service.record(sent)
                if faults:
                    found.faults["HTTP 500"] = faults
            return found

    with fake_service() as server:
        campaign = simulated_campaign(PLAN, Waiting({"sparse": 100.0}), server.url)
        campaign.run(nothing)
    note = campaign.notes.get("sparse, connections", "")
    assert ("one of the generator's 400 connections" in note) is noted
    assert ("raise --connections" in note) is noted


def test_a_server_that_dies_half_way_ends_the_test_and_its_windows_are_kept() -> None:
    simulated = Simulated({"sparse": 50.0})
    with fake_service() as server:
        target = running_service(server.url)
        campaign = Campaign(PLAN, [Contender("sparse", target, "sparse")], simulated)

        def dies(what: str, _: float) -> None:
            raise AssertionError(what)

        simulated.run = dying(server, simulated.run)  # type: ignore[method-assign]
        with pytest.raises(LoadTestError, match="sparse went away: no service answers at"):
            campaign.run(dies)
    assert len(campaign.windows) == 4
    assert not campaign.windows[-1].measurement.complete


def dying(server: Any, run: Callable[..., Measurement]) -> Callable[..., Measurement]:
    """`run`, but in the fourth window the server goes away."""
    calls: list[Load] = []

    def wrapped(load: Load, **options: Any) -> Measurement:
        calls.append(load)
        found = run(load, **options)
        if len(calls) == 4:
            server.gone = True
            found.faults["no answer: Connection refused"] = 7
        return found

    return wrapped


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"cut": 1}, False),
        ({"gave_up": True}, False),
        ({"complete": False}, False),
        ({"unsent": 2}, False),
    ],
)
def test_what_passes(changes: dict[str, Any], passed: bool) -> None:
    found = Measurement(right=1000, **changes)
    found.latency.record(99.0)
    assert passes(found, slo_ms=100) is passed
    assert not passes(found, slo_ms=50)
    found.faults["HTTP 429"] = 2
    assert not passes(found, slo_ms=100)


def test_results_survive_json_with_every_histogram() -> None:
    campaign = run({"dense": 40.0, "sparse": 100.0})
    content = results.document(campaign, complete=True)
    again = json.loads(results.dump(content))
    assert again == json.loads(json.dumps(content))
    for stored, window in zip(again["windows"], campaign.windows, strict=True):
        assert (
            Measurement.from_dict(stored["measurement"]).to_dict() == window.measurement.to_dict()
        )
    assert Interval(**again["capacities"]["sparse"]) == campaign.capacities()["sparse"]


def test_the_table_says_who_carries_how_much() -> None:
    console = Console(record=True, width=110)
    results.show(console, run({"dense": 0.0, "sparse": 100.0, "peer": 50.0}, PLAN, "peer"))
    shown = console.export_text()
    for words in ("requests/s", "sparse carries", "requests of peer", "dense meets no objective"):
        assert words in shown
