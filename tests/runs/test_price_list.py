"""Prices of AWS, by mocks: botocore checks what is asked and answered against the services' own models."""

import pytest
from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from infaas_ray.errors import ConfigError, InvalidInput, Unavailable
from infaas_ray.storage.price_list import AwsPrices, aws_prices
from tests.unit.aws import Aws, product, spot_entry


class TestOnDemand:
    def test_the_price_of_an_hour(self) -> None:
        aws = Aws()
        aws.answers_on_demand("m5.2xlarge", product("0.3840000000", marketoption="OnDemand"))
        found = aws.prices.on_demand("m5.2xlarge")
        assert found.usd_per_hour == 0.384
        assert found.source == "m5.2xlarge, AWS price list, us-east-1"
        aws.pricing_stub.assert_no_pending_responses()

    def test_what_is_no_plain_machine_is_left_out(self) -> None:
        aws = Aws()
        aws.answers_on_demand(
            "p5.48xlarge",
            product("0.0000000000"),
            product("31.464", marketoption="CapacityBlock"),
            product("7", unit="Quantity"),
            token="more",
        )
        aws.answers_on_demand("p5.48xlarge", product("98.32"), product("98.32"), after="more")
        assert aws.prices.on_demand("p5.48xlarge").usd_per_hour == 98.32

    def test_several_prices_are_told(self) -> None:
        aws = Aws()
        aws.answers_on_demand("m5.large", product("0.1"), product("0.2"))
        with pytest.raises(InvalidInput, match=r"2 prices of m5.large: \[0.1, 0.2\]"):
            aws.prices.on_demand("m5.large")

    def test_other_money_is_not_taken_for_dollars(self) -> None:
        aws = Aws()
        aws.answers_on_demand("m5.large", product("0.7", currency="CNY"))
        with pytest.raises(InvalidInput, match="CNY, not US dollars"):
            aws.prices.on_demand("m5.large")

    def test_an_unknown_machine(self) -> None:
        aws = Aws()
        aws.answers_on_demand("m5.2xlrage")
        with pytest.raises(InvalidInput, match=r"no on-demand price of 'm5.2xlrage' in 'us-east-1': check"):
            aws.prices.on_demand("m5.2xlrage")


class TestSpot:
    def test_the_median_of_the_zones_each_with_its_last_price(self) -> None:
        aws = Aws()
        aws.answers_spot(
            "g5.xlarge",
            spot_entry("a", "0.40", hour=3),
            spot_entry("b", "0.50"),
            spot_entry("c", "0.45"),
            spot_entry("a", "0.90", hour=2),
        )
        found = aws.prices.spot("g5.xlarge")
        assert found.usd_per_hour == 0.45
        assert found.source == "g5.xlarge, spot, median of 3 zones, us-east-1"

    def test_one_zone(self) -> None:
        aws = Aws()
        aws.answers_spot("g5.xlarge", spot_entry("a", "0.4027"))
        assert "median of 1 zone," in aws.prices.spot("g5.xlarge").source

    def test_an_unknown_machine_is_an_empty_answer_or_an_error(self) -> None:
        aws = Aws()
        aws.answers_spot("m5.2xlrage")
        aws.ec2_stub.add_client_error("describe_spot_price_history", "InvalidParameterValue")
        for _ in range(2):
            with pytest.raises(InvalidInput, match=r"no spot price of 'm5.2xlrage'"):
                aws.prices.spot("m5.2xlrage")


def test_each_is_asked_once_and_all_unknown_ones_are_named() -> None:
    aws = Aws()
    aws.answers_on_demand("a.large", product("1"))
    aws.answers_on_demand("b.large")
    aws.answers_spot("a.large")
    with pytest.raises(InvalidInput, match=r"on-demand price of 'b.large'.*; .*spot price of 'a.large'"):
        aws.prices.all_of([("a.large", False), ("b.large", False), ("a.large", True), ("a.large", False)])


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (NoCredentialsError(), ConfigError, "aws configure"),
        (PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"), ConfigError, "aws_secret_access"),
        (TokenRetrievalError(provider="sso", error_msg="expired"), ConfigError, "aws sso login"),
        (EndpointConnectionError(endpoint_url="https://api.pricing"), Unavailable, "Is there a network"),
        (ConnectTimeoutError(endpoint_url="https://api.pricing"), Unavailable, "is the region right"),
    ],
)
def test_what_goes_wrong_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], says: str
) -> None:
    aws = Aws()

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(aws.pricing, "_make_api_call", fails)
    with pytest.raises(raised, match=says):
        aws.prices.on_demand("m5.large")


@pytest.mark.parametrize(
    ("code", "raised", "says"),
    [
        ("AccessDeniedException", ConfigError, "pricing:GetProducts and ec2:DescribeSpotPriceHistory"),
        ("UnrecognizedClientException", ConfigError, "lets nobody"),
        ("ThrottlingException", Unavailable, "Throttling"),
    ],
)
def test_what_aws_refuses_says_what_to_do(code: str, raised: type[Exception], says: str) -> None:
    aws = Aws()
    aws.pricing_stub.add_client_error("get_products", code)
    with pytest.raises(raised, match=says):
        aws.prices.on_demand("m5.large")


def test_without_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ConfigError, match="--region us-east-1"):
        aws_prices(None)
    assert isinstance(aws_prices("eu-west-1"), AwsPrices)
