"""The report as one HTML file: no script, no other file, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtests import results
from loadtests.changes import Change
from loadtests.report import charts, svg
from loadtests.report.story import PARTS, REST, SHOWN_PERCENTILES, Accuracy, Row, Story

_TEMPLATE = "page.html.jinja"
_DATA_SETS = 2  # whose accuracy stands beside the capacity; charts have all of them
_HEADED = {"machine": "on this machine", "generator's machine": "asked from this machine"}
_PERCENTILE_TITLES = {
    "p50": "Half take no longer than (p50)",
    "p95": "95 % take no longer than (p95)",
    "p99": "99 % take no longer than (p99)",
}


def html(
    story: Story,
    *,
    source: str,
    changes: list[Change],
    older: Mapping[str, Any] | None = None,
) -> str:
    """The page; `source` is the name of the JSON file, which the page holds as well."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    content, sets = story.content, charts.data_sets(story)
    beside = sets[:_DATA_SETS]
    most = charts.widest(story)
    trades = [(data, charts.trade(story, data)) for data in sets]
    return environment.get_template(_TEMPLATE).render(
        title=f"Crisp load test, {_day(content)}",
        day=_day(content),
        machine=_machine(content),
        headline=headline(story),
        story=story,
        cards=_cards(story),
        data_sets=beside,
        rows=[_row(row, most, beside) for row in story.rows],
        ratios=[
            {"what": f"{name} against {other}", "value": f"{r.value:.2f} ×", "n": r.n}
            | {"interval": results.interval_text(r.low, r.high, 2)}
            for name, other, r in story.ratios
        ],
        latency=[
            {"title": _PERCENTILE_TITLES[p], "svg": Markup(charts.latency(story, p))}
            for p in SHOWN_PERCENTILES
        ],
        trades=[{"title": data, "svg": Markup(drawn)} for data, drawn in trades if drawn],
        parts=[*PARTS.values(), REST],
        shares=_shares(story),
        cores=Markup(charts.cores(story)),
        memory=Markup(charts.memory(story)),
        changes=changes,
        older_day=_day(older) if older else "",
        command=content["command"],
        facts=_facts(content),
        source=source,
        raw=base64.b64encode(results.dump(content).encode()).decode(),
        windows=[_window(window) for window in content["windows"]],
    )


def headline(story: Story) -> Markup:
    """The answer in one sentence."""
    if not story.ratios:
        found = story.with_capacity
        if not found:
            return Markup("No contender met the objective")
        return Markup("{} carries <strong>{}</strong> requests/s").format(
            found[0].name, svg.number(found[0].capacity.value if found[0].capacity else 0)
        )
    name, other, ratio = story.ratios[0]
    about = f" (between {ratio.low:.2f} and {ratio.high:.2f})" if ratio.low and ratio.high else ""
    return Markup("{} carries <strong>{:.2f} times</strong>{} the requests of {}, {}").format(
        name.capitalize(), ratio.value, about, other, _HEADED[_where(story.content)]
    )


def _cards(story: Story) -> list[dict[str, str]]:
    """Ratios against the others, and what accuracy says of the first of them."""
    found = [
        {
            "kicker": f"{name} : {other}",
            "figure": f"{ratio.value:.2f} ×",
            "text": "the requests; "
            + (results.interval_text(ratio.low, ratio.high, 2) or "no interval"),
        }
        for name, other, ratio in story.ratios[:4]
    ]
    for document in story.content.get("accuracy", ()):
        for name, compared in document["comparisons"].items():
            points = compared["accuracy_difference"]
            low, high = 100 * points["low"], 100 * points["high"]
            found.append(
                {
                    "kicker": f"accuracy, {document['data']['name']}",
                    "figure": _signed(100 * points["value"]),
                    "text": f"points, {name} against {compared['baseline']}; {_signed(low)} to "
                    f"{_signed(high)}, n = {document['data']['n']:,}",
                }
            )
    return found


def _row(row: Row, most: float, sets: list[str]) -> dict[str, Any]:
    capacity = row.capacity
    by_data = {accuracy.data: accuracy for accuracy in row.accuracies}
    drawn = (
        ""
        if capacity is None
        else svg.bar(
            capacity.value,
            capacity.low,
            capacity.high,
            most,
            row.number,
            f"{row.name}: {capacity.value:.1f} requests/s",
        )
    )
    return {
        "number": row.number,
        "name": row.name,
        "about": row.about,
        "note": row.note,
        "bar": Markup(drawn),
        "capacity": "none" if capacity is None else svg.number(capacity.value),
        "interval": ""
        if capacity is None
        else results.interval_text(capacity.low, capacity.high, 1),
        "accuracies": [_accuracy(by_data.get(data)) for data in sets],
        "size": "" if row.megabytes is None else f"{row.megabytes:.1f} MB",
        "memory": "" if row.rss_mib is None else f"{row.rss_mib:,.0f} MiB",
    }


def _accuracy(found: Accuracy | None) -> dict[str, str]:
    if found is None:
        return {"figure": "", "interval": ""}
    interval = f"{100 * found.low:.1f} to {100 * found.high:.1f}, n = {found.n:,}"
    return {"figure": f"{100 * found.value:.2f} %", "interval": interval}


def _shares(story: Story) -> list[dict[str, Any]]:
    every = [(row, share) for row in story.rows for share in row.shares]
    most = max((share.total for _, share in every), default=1.0)
    names = [*PARTS.values(), REST]
    found = []
    for row, share in every:
        parts = [(name, share.parts.get(name, 0.0)) for name in names]
        detail = ", ".join(f"{value:.1f}" for _, value in parts if value)
        found.append(
            {
                "what": row.name,
                "load": f"at {100 * share.load:.0f} % of its capacity",
                "bar": Markup(svg.stack(parts, most, f"{row.name}: {detail} ms")),
                "total": f"{share.total:.1f}",
                "detail": detail,
            }
        )
    return found


def _window(window: Mapping[str, Any]) -> dict[str, Any]:
    measured = window["measurement"]
    times = [window["latency_ms"].get(p) for p in (*SHOWN_PERCENTILES, "p99.9")]
    failed = sum(measured["faults"].values()) + measured["unsent"]
    remarks = [
        ("ended early: hopeless", measured["gave_up"]),
        ("stopped", not measured["complete"]),
        (window["limited_by"], window["limited_by"]),
        *((f"{times:,} × {fault}", True) for fault, times in measured["faults"].items()),
    ]
    return {
        "phase": f"{window['phase']} {window['round']}",
        "contender": window["contender"],
        "cells": [
            f"{window['rate']:,.1f}",
            *("" if time is None else f"{time:,.1f}" for time in times),
            f"{measured['right']:,}",
            f"{failed:,}",
            "" if window["cores"] is None else f"{window['cores']:.2f}",
        ],
        "remark": "; ".join(str(remark) for remark, applies in remarks if applies),
    }


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    environment, plan = content["environment"], content["plan"]
    versions = ", ".join(f"{name} {v}" for name, v in environment["versions"].items())
    found = [
        ("started, finished", f"{content['started']}, {content['finished']}"),
        (_where(content), f"{_machine(content)}; {environment['platform']}"),
        ("load average", _load(environment)),
        ("versions", f"Python {environment['python']}, {versions}"),
        ("objective", f"99 % under {plan['slo_ms']:g} ms, errors under 0.1 %"),
        (
            "windows",
            f"{plan['seconds']:g} s, stretched up to {plan['stretch']:g} times at low rates",
        ),
        (
            "generator",
            f"{plan['processes']} process(es), {plan['connections']} connections at most",
        ),
        ("seed", str(plan["seed"])),
    ]
    for name, contender in content["contenders"].items():
        server = contender["server"]
        found.append((name, server["started_with"] or f"{server['url']} ({server['adapter']})"))
    return found


def _day(content: Mapping[str, Any]) -> str:
    return datetime.fromisoformat(content["started"]).strftime("%Y-%m-%d")


def _where(content: Mapping[str, Any]) -> str:
    """What is known of the machine: of a service that ran already, only who asked it."""
    own = [each["server"] for each in content["contenders"].values() if each["own"]]
    return "machine" if all(each["started_with"] for each in own) else "generator's machine"


def _load(environment: Mapping[str, Any]) -> str:
    """In results from before it was asked at the start, it holds the test's own load."""
    if "load_average_before" in environment:
        return f"{environment['load_average_before'] or 0:.2f} before the test"
    return f"{environment.get('load_average') or 0:.2f} at the end"


def _machine(content: Mapping[str, Any]) -> str:
    environment = content["environment"]
    return f"{environment['processor']}, {environment['cores']} cores"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
