"""`infaas`: bring a system up, register models, ask questions, see why.

Every command takes `--json`; results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 refused or
failed (the message says what would be right), 2 wrong usage.

Rule: the module of a command is imported when the command is called, so that none waits for what others need.
"""

from importlib import import_module

import click

_SUMMARIES = {  # by module and function: how the help of the command begins
    "costs.cost": "What the machines cost and for what.",
    "insight.events": "What the controller saw and did, and why.",
    "insight.replay": "Feed a decision LOG to this version.",
    "models.list_": "Use cases, architectures and variants that are registered.",
    "models.profile": "Carry profiles between machines as files.",
    "models.register": "Register MODEL: generate its variants, measure them, offer those that none dominates.",
    "models.variants": "What TARGET (a use case or an architecture) can be answered with: accuracy, latency, price.",
    "planning.plan": "The cheapest fleet that answers so many rows a second of TARGET within their SLOs.",
    "prices.prices": "Worker types and their prices, with source and date.",
    "queries.explain": "Which variant would answer such a query now, and why the others lose.",
    "queries.query": "Ask TARGET (a use case, an architecture or a variant) and show who answered.",
    "simulations.simulate": "What a workload would cost and how it would be served.",
    "system.demo": "The whole story: train, register, serve, query, scale.",
    "system.down": "Let every query finish, then end the system.",
    "system.status": "Workers, replicas, and what became of the queries.",
    "system.up": "Start the system; returns when it takes queries.",
}


class _Later(click.Command):
    """Stands for a command, with its name and summary, until it is called."""

    def __init__(self, place: str, summary: str) -> None:
        self._module, _, self._function = place.partition(".")
        super().__init__(self._function.rstrip("_"), short_help=summary)

    def load(self) -> click.Command:
        """The command itself."""
        found: click.Command = getattr(import_module(f"infaas_ray.cli.{self._module}"), self._function)
        return found


class _Commands(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, found.load() if isinstance(found, _Later) else found, rest


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="infaas_ray")
def main() -> None:
    """Model-less inference serving: say what a query needs; the system chooses the model-variant."""


for _place, _summary in _SUMMARIES.items():
    main.add_command(_Later(_place, _summary))
