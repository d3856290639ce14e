"""Score images over HTTP: one at a time, as they are uploaded.

The service runs on this machine until it is stopped; a signal lets it finish
what it has. It needs keys: `ffaa serve --make-key` makes one, and FFAA_API_KEYS
or --keys-file tell the service its digest. The file of --config is one of Ray
Serve and holds all settings; on Kubernetes it is `serveConfigV2`. SIGHUP has it
read again, and what it says now served in place of what was, without a pause.

  FFAA_API_KEYS=DIGEST ffaa serve --bundle s3://models/ffaa --port 8000
  ffaa serve --config serve.yaml
  curl -H "Authorization: Bearer KEY" -F file=@photo.jpg localhost:8000/v1/score
"""

import argparse
from functools import partial

from ffaa_core.commands.options import add_model_options, add_scoring_options, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ffaa serve`."""
    add_model_options(parser)
    add_scoring_options(parser)
    group = parser.add_argument_group("the service")
    group.add_argument("--host", metavar="ADDRESS", help="where it listens (127.0.0.1: this machine only)")
    group.add_argument("--port", type=int, metavar="N", help="the port (8000)")
    group.add_argument(
        "--metrics-port", type=int, default=0, metavar="N", help="where Prometheus scrapes (any free port)"
    )
    group.add_argument(
        "--keys-file", dest="service.keys_file", metavar="FILE", help="digests of keys, one a line"
    )
    group.add_argument(
        "--anonymous",
        dest="service.anonymous",
        action="store_true",
        default=None,
        help="let everybody in, without a key",
    )
    group.add_argument("--make-key", action="store_true", help="make a key, show it and its digest, and end")
    parser.add_argument("--verbose", action="store_true", help="all log lines of Ray and vLLM")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes, and return the exit code."""
    if args.make_key:
        from serve.keys import VARIABLE, make_key

        key, digest = make_key()
        print(f"key, for the client:     {key}\n{VARIABLE}, for the service: {digest}")
        return 0
    from serve.deployment import Deployment
    from serve.running import serve

    http = {"host": args.host, "port": args.port}
    read = partial(Deployment.read, args.config, settings_of(args), http)
    return serve(read, metrics_port=args.metrics_port, verbose=args.verbose)
