import pytest
import typer
import typer.core


@pytest.fixture(autouse=True)
def contexts_are_what_typer_says_they_are(monkeypatch):
    """Typer declares typer.Context and hands over its base class, which the shape checker refuses; so make it true."""
    for command in (typer.core.TyperCommand, typer.core.TyperGroup):
        monkeypatch.setattr(command, "context_class", typer.Context)
