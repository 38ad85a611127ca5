import pytest
from nst_service.store.database_url import parse_database_url

_PLAIN = "postgresql://ada:secret@host:5433/nst"


def test_a_url_without_options_is_accepted() -> None:
    url = parse_database_url(_PLAIN)
    assert (url.username, url.password, url.host, url.port, url.database) == ("ada", "secret", "host", 5433, "nst")


@pytest.mark.parametrize(
    "options",
    [
        "sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "connect_timeout=3&application_name=nst",
        "host=/var/run/postgresql",
        "host=one:5432&host=two:5433&target_session_attrs=read-write",
        "options=-c%20statement_timeout%3D60000",
    ],
)
def test_the_options_of_libpq_are_accepted(options: str) -> None:
    assert parse_database_url(f"{_PLAIN}?{options}").query


@pytest.mark.parametrize("name", ["autocommit", "prepare_threshold", "row_factory", "context", "client_encoding", "x"])
def test_another_option_is_refused_by_its_name_and_without_its_value(name: str) -> None:
    refusal = f"the option '{name}', which is not accepted; accepted are .*sslmode"
    with pytest.raises(ValueError, match=refusal) as caught:
        parse_database_url(f"{_PLAIN}?{name}=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("option", ["connect_timeout=soon", "keepalives=yes", "tcp_user_timeout=-1", "sslmode=maybe"])
def test_a_value_that_an_option_cannot_have_is_refused_by_the_name_of_the_option(option: str) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(ValueError, match=f"the option '{name}' of the database URL must be") as caught:
        parse_database_url(f"{_PLAIN}?{option}")
    assert value not in str(caught.value)


@pytest.mark.parametrize("password", ["se?cret", "se#cret", "se[cret"])
def test_a_password_with_special_characters_is_no_option(password: str) -> None:
    assert parse_database_url(f"postgresql://ada:{password}@host/nst?sslmode=require").password == password
    with pytest.raises(ValueError, match="the option 'autocommit'") as caught:
        parse_database_url(f"postgresql://ada:{password}@host/nst?autocommit=false")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("option", ["autocommit=", "autocommit", "sslmode=", "sslmode"])
def test_an_option_without_a_value_is_refused_by_its_name(option: str) -> None:
    with pytest.raises(ValueError, match=f"the option '{option.rstrip('=')}'"):
        parse_database_url(f"{_PLAIN}?{option}")


@pytest.mark.parametrize("options", ["sslmode=disable&sslmode=require", "connect_timeout=1&connect_timeout=2"])
def test_an_option_that_is_given_twice_is_refused_by_its_name(options: str) -> None:
    with pytest.raises(ValueError, match=f"the option '{options.partition('=')[0]}' 2 times; once is accepted"):
        parse_database_url(f"{_PLAIN}?{options}")


@pytest.mark.parametrize("url", ["", "secret", "mysql://ada:secret@host/nst", "postgresql://ada:secret@host:port/nst"])
def test_what_is_no_url_of_postgresql_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://USER:PASSWORD") as caught:
        parse_database_url(url)
    assert "secret" not in str(caught.value)
