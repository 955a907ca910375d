"""Defines `raysearch schema`, which prints what a job file may say, for editors and readers."""

import json

import click

from raysearch.cli.flags import is_given, output


@click.command()
@output("json")
@click.option("--markdown", is_flag=True, help="The same as a page to read, key by key.")
def schema(output: str, markdown: bool) -> int:
    """Print the JSON Schema of the job file, by which editors complete and check it."""
    from raysearch.cli.json_output import emit_text
    from raysearch.job.schema import job_page, job_schema

    if markdown:
        if is_given("output"):
            raise click.UsageError("--markdown is a page to read; leave -o json out")
        emit_text(job_page(), end="")
    else:
        emit_text(json.dumps(job_schema(), indent=2, ensure_ascii=False))
    return 0
