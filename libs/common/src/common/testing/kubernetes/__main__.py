"""A whole Kubernetes from the command line.

python -m common.testing.kubernetes up       make it, or mend it; says what it does
python -m common.testing.kubernetes status   what runs
python -m common.testing.kubernetes down     remove it and everything that it made
python -m common.testing.kubernetes build    only build the programs, which takes minutes the first time

With KUBECONFIG set there is a cluster already, and `up` makes none.
"""

import argparse
import os
import sys
from pathlib import Path

from common.testing.building import CannotBuild
from common.testing.kubernetes.binary import echo_program, kubernetes_programs
from common.testing.kubernetes.cluster import Cluster, ClusterError

DIRECTORY = Path(".run/cluster")


def main() -> int:
    """Does what the command line says; the result is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m common.testing.kubernetes", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "status", "build"))
    parser.add_argument("--dir", type=Path, default=DIRECTORY, help="where the cluster lives (default: %(default)s)")
    chosen = parser.parse_args()
    cluster = Cluster(chosen.dir)
    try:
        match chosen.verb:
            case "up":
                given = os.environ.get("KUBECONFIG", "")
                if given and Path(given).absolute() != cluster.kubeconfig.absolute():
                    print(f"cluster: KUBECONFIG names the cluster of {given}, so none is made; with `KUBECONFIG=` one is")
                else:
                    cluster.up()
            case "down":
                cluster.down()
            case "status":
                return _status(cluster)
            case _:
                print(kubernetes_programs())
                print(echo_program())
    except (ClusterError, CannotBuild) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _status(cluster: Cluster) -> int:
    """0 if all of it runs."""
    for daemon in cluster.daemons():
        print(f"{daemon.name:<24} {daemon.pid or 'is not running'}")
    whole = cluster.runs()
    print(f"{cluster.url}: " + ("ready" if whole else "not ready; mend it with: python -m common.testing.kubernetes up"))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
