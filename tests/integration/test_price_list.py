"""Prices of AWS, as moto answers for it."""

import pytest
from moto import mock_aws

from infaas_ray.errors import InvalidInput
from infaas_ray.storage.price_list import AwsPrices
from tests.unit.aws import client


def test_motos_spot_market() -> None:
    with mock_aws():
        prices = AwsPrices(None, client("ec2"), "us-east-1")
        found = prices.spot("m5.2xlarge")
        with pytest.raises(InvalidInput, match=r"no spot price of 'm5.nano'"):
            prices.spot("m5.nano")
    assert found.usd_per_hour == 0.00001  # moto's own, in every zone
    assert "zones, us-east-1" in found.source
