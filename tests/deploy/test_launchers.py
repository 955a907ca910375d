"""The list of launchers: what each entry needs is there, and the command line follows from it."""

from dataclasses import fields

import click
import pytest

from raysearch.cli.deploy import render
from raysearch.deploy import settings
from raysearch.deploy.launchers import LAUNCHERS
from raysearch.deploy.render import TEMPLATES


def test_each_launcher_has_templates_a_function_and_a_command() -> None:
    folders = {p.name for p in TEMPLATES.iterdir() if p.is_dir()}
    shared = {name for launcher in LAUNCHERS.values() for name in launcher.shared}
    assert folders == {*LAUNCHERS, *shared}
    assert set(render.commands) == set(LAUNCHERS)
    assert {name for name in dir(settings) if name.startswith("for_")} == {
        f"for_{name}" for name in LAUNCHERS
    }


@pytest.mark.parametrize("name", LAUNCHERS)
def test_each_option_is_a_flag_with_its_default_in_the_help(name: str) -> None:
    flags = {p.name: p for p in render.commands[name].params if isinstance(p, click.Option)}
    options = {f.name: f for f in fields(LAUNCHERS[name].options) if f.metadata}
    assert set(flags) == {*options, "to", "output"}
    for option, field in options.items():
        flag = flags[option]
        assert flag.multiple == isinstance(field.default, tuple)
        if field.default and not flag.multiple:
            assert str(field.default) in str(flag.help)
