"""obstore: whole objects from an S3 store. Credentials are those of the environment."""

import json
import os
import sys
from pathlib import Path

from obstore.store import S3Store

sys.path.insert(0, str(Path(__file__).parent))

from fetch import MARK, measured


def main() -> None:
    """Fetch what the command line names."""
    (asked,) = json.loads(sys.argv[1])
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    plain = {"allow_http": endpoint.startswith("http://")}
    store = S3Store(asked["data"], endpoint=endpoint, client_options=plain)
    names = [f"object-{number}" for number in range(asked["batch"])]
    found = measured(lambda name: len(store.get(name).bytes()), names, threads=asked["workers"], rounds=asked["epochs"])
    print(f"\n{MARK}{json.dumps(found)}")


if __name__ == "__main__":
    main()
