"""What AWS asks for its machines now: on demand from the price list, spot from the market's history.

US dollars an hour for Linux on shared hardware without other software. The price list is served from one region for
all; the spot market of a region has a price in each zone, of which the median counts, because Ray chooses the zone.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from infaas_ray.errors import ConfigError, InfaasError, InvalidInput, MissingExtra, Unavailable

_PRICE_LIST_REGION = "us-east-1"
_ON_DEMAND = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}
_REFUSED = ("Auth", "AccessDenied", "Unauthorized", "UnrecognizedClient", "InvalidClientToken", "Expired", "OptIn")
_RIGHTS = "pricing:GetProducts and ec2:DescribeSpotPriceHistory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """The price of a machine now, and in words where it is from."""

    usd_per_hour: float
    source: str


class AwsPrices:
    """The prices of a region. `pricing` and `ec2` are boto3's clients of these services."""

    def __init__(self, pricing: Any, ec2: Any, region: str) -> None:
        self._pricing = pricing
        self._ec2 = ec2
        self._region = region

    def on_demand(self, instance_type: str) -> Offered:
        """Raises InvalidInput where the region has no such machine."""
        asked = _ON_DEMAND | {"instanceType": instance_type, "regionCode": self._region}
        filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in asked.items()]
        pages = self._pricing.get_paginator("get_products")
        with _asking("read the price list"):
            products = [
                json.loads(x)
                for page in pages.paginate(ServiceCode="AmazonEC2", Filters=filters)
                for x in page["PriceList"]
            ]
        prices = {price for product in products for price in _hourly(product)}
        if not prices:
            raise self._unknown(instance_type, "on-demand")
        if len(prices) > 1:
            raise InvalidInput(f"the price list has {len(prices)} prices of {instance_type}: {sorted(prices)} USD")
        return Offered(usd_per_hour=prices.pop(), source=f"{instance_type}, AWS price list, {self._region}")

    def spot(self, instance_type: str) -> Offered:
        """The median of the zones' prices now. Raises InvalidInput where the region has no such spot machine."""
        now = datetime.now(UTC)  # as start and end: the last price before it, of each zone
        pages = self._ec2.get_paginator("describe_spot_price_history")
        with _asking("read spot prices", self._unknown(instance_type, "spot")):
            history = [
                x
                for page in pages.paginate(
                    InstanceTypes=[instance_type], ProductDescriptions=["Linux/UNIX"], StartTime=now, EndTime=now
                )
                for x in page["SpotPriceHistory"]
            ]
        latest = {x["AvailabilityZone"]: float(x["SpotPrice"]) for x in sorted(history, key=lambda x: x["Timestamp"])}
        if not latest:
            raise self._unknown(instance_type, "spot")
        zones = f"{len(latest)} zone{'s' if len(latest) > 1 else ''}"
        source = f"{instance_type}, spot, median of {zones}, {self._region}"
        return Offered(usd_per_hour=round(median(latest.values()), 6), source=source)

    def all_of(self, wanted: Iterable[tuple[str, bool]]) -> dict[tuple[str, bool], Offered]:
        """Prices by (instance type, whether spot). Raises InvalidInput that names every one there is not."""
        found: dict[tuple[str, bool], Offered] = {}
        unknown: list[str] = []
        for instance_type, spot in dict.fromkeys(wanted):
            try:
                price = self.spot(instance_type) if spot else self.on_demand(instance_type)
            except InvalidInput as error:
                unknown.append(error.message)
            else:
                found[instance_type, spot] = price
        if unknown:
            raise InvalidInput("; ".join(unknown))
        return found

    def _unknown(self, instance_type: str, market: str) -> InvalidInput:
        return InvalidInput(
            f"AWS names no {market} price of {instance_type!r} in {self._region!r}: check the instance type and the "
            "region; not every region has every type"
        )


def aws_prices(region: str | None) -> AwsPrices:
    """The prices of a region, by default the one of the user's AWS settings.

    Raises MissingExtra without boto3, and ConfigError where no region is known.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise MissingExtra("boto3 is not installed: pip install 'infaas_ray[s3]'", "s3") from error
    try:
        session = boto3.Session(region_name=region)
        if not session.region_name:
            raise ConfigError("prices differ by region: say which, such as --region us-east-1, or set AWS_REGION")
        config = Config(retries={"total_max_attempts": 4, "mode": "standard"}, connect_timeout=10)
        pricing = session.client("pricing", region_name=_PRICE_LIST_REGION, config=config)
        return AwsPrices(pricing, session.client("ec2", config=config), session.region_name)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"cannot use AWS: {error}") from error


def _hourly(product: dict[str, Any]) -> Iterator[float]:
    """The prices on demand of a product of the price list, in US dollars an hour; reserved capacity is not one."""
    if product["product"]["attributes"].get("marketoption", "OnDemand") != "OnDemand":
        return
    for offer in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in offer["priceDimensions"].values():
            per_unit = dimension["pricePerUnit"]
            if "USD" not in per_unit:
                raise InvalidInput(f"the price list gives {', '.join(per_unit)}, not US dollars")
            if dimension["unit"] == "Hrs" and float(per_unit["USD"]) > 0:
                yield float(per_unit["USD"])


@contextmanager
def _asking(what: str, unknown: InfaasError | None = None) -> Iterator[None]:
    """Say in words what AWS or the network answered, and what to do about it."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response["Error"]["Code"])
        if unknown is not None and code == "InvalidParameterValue":
            raise unknown from None
        if any(x in code for x in _REFUSED):
            raise ConfigError(
                f"AWS lets nobody with these credentials {what} ({error}): use those of a user who may {_RIGHTS}"
            ) from None
        raise Unavailable(f"cannot {what}: {error}", 5.0) from None
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
    ) as error:
        raise ConfigError(
            f"cannot {what}: {error}. Log in with 'aws sso login' or 'aws configure', or set AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, as a user who may {_RIGHTS}"
        ) from None
    except exceptions.BotoCoreError as error:
        raise Unavailable(f"cannot {what}: {error} Is there a network, and is the region right?", 5.0) from None
