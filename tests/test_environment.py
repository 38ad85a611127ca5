import pytest
from nst_service.environment import unknown_variables

KNOWN = {"NST_CONFIG", "NST_MAX_QUEUED", "NST_DATA_DIR"}


def test_a_misspelt_variable_is_named_with_the_setting_that_it_resembles():
    assert list(unknown_variables(["NST_MAX_QUEUD", "PATH", "NST_MAX_QUEUED"], KNOWN)) == [
        "the environment variable NST_MAX_QUEUD is no setting and has no effect; did you mean NST_MAX_QUEUED?"
    ]
    assert list(unknown_variables(["NST_X"], KNOWN)) == [
        "the environment variable NST_X is no setting and has no effect"
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("NST_SERVICE_HOST", "NST_SERVICE_PORT", "NST_SERVICE_PORT_GRPC", "NST_PORT", "NST_PORT_50051_TCP"),
        *("NST_PORT_50051_TCP_PROTO", "NST_PORT_50051_TCP_PORT", "NST_PORT_50051_TCP_ADDR"),
        *("NST_SERVER_SERVICE_HOST", "NST_SERVER_PORT_50051_TCP_ADDR", "NST_TARGET", "NST_TOKEN_FILE"),
    ],
)
def test_variables_of_kubernetes_and_of_the_client_are_no_settings_that_are_misspelt(name: str):
    assert list(unknown_variables([name], KNOWN)) == []
