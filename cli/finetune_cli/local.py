"""`finetune local`: the embedded cluster by hand."""

from __future__ import annotations

import typer

from finetune_cli.console import ERR, print_out, refusing

app = typer.Typer(
    help="An embedded cluster on this machine: an emulation of Kubernetes with S3, for trying out.",
    no_args_is_help=True,
)


@app.command()
def up() -> None:
    """Start a cluster and print how to reach it. Needs no root, no Docker and no network."""
    from finetune_local.cluster import ClusterError
    from finetune_local.cluster import up as start

    with refusing(ClusterError, code=1), ERR.status("Starting the embedded cluster"):
        cluster = start()
    print_out(f"export KUBECONFIG={cluster.kubeconfig}")


@app.command()
def down() -> None:
    """Stop the cluster and remove everything that it held."""
    from finetune_local.cluster import ClusterError
    from finetune_local.cluster import down as stop

    with refusing(ClusterError, code=1):
        print_out("stopped" if stop() else "was not running")


@app.command()
def status() -> None:
    """Say whether a cluster is up and how to reach it. Exit code 1: none is."""
    from finetune_local.cluster import status as look

    cluster = look()
    if cluster is None:
        print_out("not running; start one with: finetune local up")
        raise typer.Exit(1)
    print_out(f"running in {cluster.directory}, S3 at {cluster.s3.endpoint}")
    print_out(f"export KUBECONFIG={cluster.kubeconfig}")
