"""``python -m deploycheck.serving ARTIFACT``: what ``deploycheck serve`` runs."""

import argparse
import sys

from deploycheck.serving.server import add_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="deploycheck serve")
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
