"""`infaas`: bring a system up, register models, ask questions, see why.

Every command takes `--json`; results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 refused or
failed (the message says what would be right), 2 wrong usage.
"""

import click

from infaas_ray.cli import costs, insight, models, planning, prices, queries, simulations, system


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="infaas_ray")
def main() -> None:
    """Model-less inference serving: say what a query needs; the system chooses the model-variant."""


for _command in (
    *(system.up, system.down, system.status, system.demo),
    *(models.register, models.list_, models.variants, models.profile),
    *(queries.query, queries.explain),
    *(insight.events, insight.replay, costs.cost, prices.prices, planning.plan),
    simulations.simulate,
):
    main.add_command(_command)
