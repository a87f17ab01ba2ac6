"""`python -m infaas_ray.cli` is `infaas`."""

from infaas_ray.cli import main

main(prog_name="infaas")
