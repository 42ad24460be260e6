"""One gateway per module and way of calling; the fake's records are cleared before each test."""

import pytest

import harness
from table import Table


def pytest_configure(config):
    config.pluginmanager.register(Table(), "table of clients")


@pytest.fixture(scope="module")
def open_gateway():
    """A gateway with two accounts and one api key that callers need not present."""
    with harness.running(accounts=2, prepare=lambda gateway: gateway.create_api_key("ci")) as (fake, gateway):
        yield fake, gateway


@pytest.fixture(scope="module")
def locked_gateway():
    """A gateway that serves nobody without an api key."""

    def prepare(gateway):
        secret = gateway.create_api_key("ci")
        gateway.require_api_keys()
        return secret

    with harness.running(accounts=1, prepare=prepare) as (fake, gateway):
        yield fake, gateway


class Pool:
    """What a test sees: the gateway, the fake behind it, and what was recorded since the test began."""

    def __init__(self, fake, gateway, is_new: bool = False):
        """Of a new gateway, everything is the test's."""
        self.fake, self.gateway, self.api_key = fake, gateway, gateway.prepared
        self._rows_before = 0 if is_new else len(gateway.logged())
        if not is_new:
            fake.clear()

    def recorded(self, exchanges: int) -> list:
        """The rows of this test, once there are as many as it made exchanges."""
        return self.gateway.wait_for_log(self._rows_before + exchanges)[self._rows_before :]

    def check_usage(self, exchanges: int):
        """What the gateway recorded is what upstream reported: nothing lost, nothing invented."""
        rows = self.recorded(exchanges)
        assert len(rows) == exchanges, [(row["route"], row["status"]) for row in rows]
        names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
        recorded = harness.Totals(*(sum(row[name] or 0 for row in rows) for name in names))
        reported = self.fake.totals()
        assert recorded == reported
        assert reported.input > 0 and reported.output > 0
        assert not any(row["is_estimated"] for row in rows)

    def check_upstream_saw_accounts_only(self, *secrets: str):
        """Upstream gets an account's token and nothing that the client sent to prove itself."""
        requests = self.fake.model_requests()
        assert requests
        for request in requests:
            headers = request["head"]["headers"]
            authorizations = [value for name, value in headers if name == "authorization"]
            assert len(authorizations) == 1 and request["account"], headers
            for secret in secrets:
                assert not any(secret in value for _, value in headers), "the client's key reached upstream"
                assert secret not in request["body"]


@pytest.fixture
def pool(open_gateway):
    return Pool(*open_gateway)


@pytest.fixture
def locked_pool(locked_gateway):
    return Pool(*locked_gateway)
