"""`raysearch schema`: what a job file may say, for editors and for readers."""

import json

import click


@click.command()
@click.option("--markdown", is_flag=True, help="The same as a page to read, key by key.")
def schema(markdown: bool) -> int:
    """Print the JSON Schema of the job file, by which editors complete and check it."""
    from raysearch.job.schema import job_page, job_schema

    if markdown:
        click.echo(job_page(), nl=False)
    else:
        click.echo(json.dumps(job_schema(), indent=2, ensure_ascii=False))
    return 0
