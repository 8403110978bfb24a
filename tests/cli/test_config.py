"""`ingestor config`: the sample, the effective settings, and paths nobody can guess."""

import tomllib
from pathlib import Path

from ingestor.settings import load
from tests.cli.calling import ingestor

ROOT = Path(__file__).parent.parent.parent


def test_example_is_the_shipped_file(tmp_path: Path) -> None:
    """`config example` prints config/ingestor.toml, --markdown prints config/reference.md, byte for byte."""
    assert ingestor("config", "example", folder=tmp_path).raw == (ROOT / "config/ingestor.toml").read_bytes()
    reference = ingestor("config", "example", "--markdown", folder=tmp_path)
    assert reference.raw == (ROOT / "config/reference.md").read_bytes()


def test_show_hides_secrets_and_names_its_source(tmp_path: Path) -> None:
    """`config show` prints valid TOML of what counts, with passwords hidden and the file named."""
    config = tmp_path / "x.toml"
    config.write_text(
        '[database]\nurl = "postgresql://u:s3cret@h/d"\n'
        '[[mailbox]]\nname = "main"\nhost = "h.example"\nusername = "u"\npassword = "s3cret"\n'
    )

    called = ingestor("--config", config, "config", "show", folder=tmp_path)

    assert called.code == 0
    assert "s3cret" not in called.out + called.err
    assert called.out.startswith(f"# {config}\n")
    table = tomllib.loads(called.out)
    assert table["mailbox"][0]["password"] == "***"
    assert table["database"]["url"] == "postgresql+psycopg://u:***@h/d"


def test_check_is_what_a_reload_asks(tmp_path: Path) -> None:
    """`config check`, which the unit asks before SIGHUP, says nothing or what a reload would refuse."""
    config, block = tmp_path / "x.toml", '[[mailbox]]\nname = "m"\nhost = "h"\nusername = "u"\n'
    for written, code, said in (
        (f'{block}password_credential = "no-such"\n', 0, ""),
        (block, 2, "x.toml:1"),
        ("", 2, "nothing to read"),
    ):
        config.write_text(written)
        called = ingestor("--config", config, "config", "check", folder=tmp_path)
        assert (called.code, called.out) == (code, "")
        assert said in called.err
        assert bool(said) is bool(called.err)
    assert (
        "/opt/ingestor/bin/ingestor --config /etc/ingestor/ingestor.toml config check"
        in (ROOT / "systemd/ingestor.service").read_text().partition("ExecReload=")[2].partition("\n")[0]
    )


def test_new_endpoints_load_and_differ(tmp_path: Path) -> None:
    """What `config new-endpoint` prints is a valid configuration with a path of its own each time."""
    paths = set()
    for provider in ("agile", "infobip", "ip1"):
        called = ingestor("config", "new-endpoint", provider, folder=tmp_path)
        config = tmp_path / f"{provider}.toml"
        config.write_text(called.out)
        webhook = load(config, None).webhook
        assert webhook is not None
        assert webhook.endpoint[0].provider == provider
        assert f"https://YOUR-HOST{webhook.endpoint[0].path}" in called.out
        paths.add(webhook.endpoint[0].path.rpartition("/")[2])

    assert len(paths) == 3
    assert all(len(path) == 32 for path in paths)


def test_a_new_endpoint_fits_the_listener_there_is(tmp_path: Path) -> None:
    """With a TLS listener configured the URL names its port, and no second [webhook] is printed."""
    config = tmp_path / "x.toml"
    config.write_text(
        '[webhook]\nlisten = "0.0.0.0:8443"\ntls_certificate = "c"\ntls_key = "k"\n'
        '[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    )

    called = ingestor("--config", config, "config", "new-endpoint", "agile", folder=tmp_path)

    assert "https://YOUR-HOST:8443/agile/" in called.out
    assert "[webhook]" not in called.out
    config.write_text(config.read_text() + called.out)
    load(config, None)
