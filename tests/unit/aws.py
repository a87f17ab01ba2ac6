"""AWS's price list and spot market, as mocks whose requests and answers botocore checks against its service models."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.stub import ANY, Stubber

from infaas_ray.storage.price_list import AwsPrices


def client(service: str) -> Any:
    return boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


def product(*usd: str, unit: str = "Hrs", currency: str = "USD", **attributes: str) -> str:
    """A product of the price list with one price on demand each, in the shape that AWS documents."""
    dimensions = {f"S.T{n}.D": {"unit": unit, "pricePerUnit": {currency: x}} for n, x in enumerate(usd)}
    terms = {f"S.{name}": {"priceDimensions": {name: one}} for name, one in dimensions.items()}
    return json.dumps({"product": {"sku": "S", "attributes": attributes}, "terms": {"OnDemand": terms, "Reserved": {}}})


def asked(instance_type: str, region: str = "us-east-1") -> dict[str, Any]:
    """The only question about an instance type to which the answer is a price of plain Linux machines."""
    filters = {
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "instanceType": instance_type,
        "regionCode": region,
    }
    told = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in filters.items()]
    return {"ServiceCode": "AmazonEC2", "Filters": told}


def spot_entry(zone: str, usd: str, hour: int = 1) -> dict[str, Any]:
    return {
        "AvailabilityZone": zone,
        "InstanceType": "any",
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": usd,
        "Timestamp": datetime(2026, 11, 26, hour, tzinfo=UTC),
    }


class Aws:
    """Both services; what is to be answered is said in the order of the questions."""

    def __init__(self) -> None:
        self.pricing, self.ec2 = client("pricing"), client("ec2")
        self.pricing_stub, self.ec2_stub = Stubber(self.pricing), Stubber(self.ec2)
        self.pricing_stub.activate()
        self.ec2_stub.activate()
        self.prices = AwsPrices(self.pricing, self.ec2, "us-east-1")

    def answers_on_demand(self, instance_type: str, *products: str, token: str = "", after: str = "") -> None:
        answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": list(products)}
        question = asked(instance_type) | ({"NextToken": after} if after else {})
        self.pricing_stub.add_response("get_products", answer | ({"NextToken": token} if token else {}), question)

    def answers_spot(self, instance_type: str, *history: Mapping[str, Any]) -> None:
        question = {
            "InstanceTypes": [instance_type],
            "ProductDescriptions": ["Linux/UNIX"],
            "StartTime": ANY,
            "EndTime": ANY,
        }
        self.ec2_stub.add_response("describe_spot_price_history", {"SpotPriceHistory": list(history)}, question)
