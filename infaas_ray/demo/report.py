"""The demonstration's table: what was asked, who answered, and the bill."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from infaas_ray.demo.story import Asked, Told


def show(told: "Told", console: Console) -> None:
    """Print the table, the burst, the bill and the accounts."""
    console.print(_table(told))
    _show_burst(told, console)
    for use_case, bill in told.bills.items():
        console.print(
            f"Bill of {use_case}: {bill.usd:.2e} USD for {bill.answers} answers; always the most accurate variant: "
            f"{bill.most_accurate_usd:.2e} USD ({bill.most_accurate_usd / bill.usd:.2f}x)."
        )
    fates = ", ".join(f"{count} {name}" for name, count in sorted(told.fates.items()))
    verdict = ("every query accounted for", "green") if told.complete else ("accounts differ", "red")
    counted = ", ".join(f"{count} {name}" for name, count in told.system_counts.items())
    asked = f"Queries: {sum(told.fates.values())} asked = {fates}; the system counted {counted}: "
    console.print(Text.assemble(asked, verdict, "."))
    console.print("Seconds: " + ", ".join(f"{name} {seconds:g}" for name, seconds in told.seconds.items()))
    console.print(f"Picture: {told.picture}")


def _table(told: "Told") -> Table:
    table = Table(title="What was asked, and who answered", title_justify="left", header_style="bold")
    for name in ("target", "SLO asked", "answered by"):
        table.add_column(name, overflow="fold")
    for name in ("met", "latency ms", "accuracy", "USD per 1k", "most accurate"):
        table.add_column(name, justify="right")
    for asked in told.asked:
        table.add_row(asked.question.target, asked.question.words(), *_outcome(asked))
    return table


def _outcome(asked: "Asked") -> list[str | Text]:
    if asked.fate != "answered":
        return [Text.assemble((asked.fate, "yellow"), f": {asked.said}"), "", "", "", "", ""]
    assert asked.latency_ms is not None
    again = f" (after {asked.attempts - 1} refusals while loading)" if asked.attempts > 1 else ""
    return [
        asked.variant + again,
        "yes" if asked.slo_met else Text("no", "red"),
        f"{asked.latency_ms:.1f}",
        f"{asked.accuracy:.4f}",
        f"{asked.usd_per_1k:.2e}",
        f"{asked.most_accurate_usd_per_1k:.2e}",
    ]


def _show_burst(told: "Told", console: Console) -> None:
    chosen = ", ".join(f"{name} {count}" for name, count in told.burst_variants.most_common())
    console.print(f"Burst: {sum(told.burst_variants.values())} answers by {chosen or 'nobody'}.")
    console.print(f"Replicas of one variant at most: {told.peak_replicas()}.")
