"""`ipclock metrics`: the pool and its past as metrics for Prometheus."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ipclock.cli import options, output_file
from ipclock.display import prometheus
from ipclock.errors import N_
from ipclock.history import queries
from ipclock.i18n import _

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from ipclock.config.settings import Settings

SUMMARY = N_("print metrics for Prometheus")
EXAMPLES = (
    "ipclock metrics",
    "ipclock metrics -o /var/lib/node_exporter/ipclock.prom",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    help_text = _("write to FILE, replacing it atomically, instead of to stdout")
    parser.add_argument("-o", "--output", metavar="FILE", help=help_text)
    parser.add_argument(
        "--format",
        dest="form",
        choices=prometheus.FORMATS,
        help=_(
            "select OpenMetrics or the older text format of Prometheus (default: openmetrics; for *.prom prometheus)"
        ),
    )
    options.add_pool_options(parser)


def run(args: Namespace, settings: Settings) -> int:
    """Print the metrics on stdout or write them to the file. Without a history there are no counters."""
    options.require_pool_or_past(settings, default=False)
    totals = queries.totals(settings.history, settings.pool_name) if settings.history else []
    # the textfile collector of node_exporter reads *.prom, and no OpenMetrics
    form = args.form or ("prometheus" if args.output and args.output.endswith(".prom") else "openmetrics")
    text = prometheus.text(options.looker(settings)(), totals, form)
    if args.output:
        output_file.write(args.output, text, 0o644)  # node_exporter reads it as another user
    elif sys.stdout:
        sys.stdout.buffer.write(text)
    return 0
