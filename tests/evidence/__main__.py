"""Command line: run an experiment, or write the report."""

import argparse
import json
import time
from typing import Any

from evidence import experiments, hosts, records


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    if arguments.experiment == "report":
        records.PAGE.write_text(records.page(), encoding="utf-8")
        return
    host, experiment = hosts.load(arguments.host), experiments.load(arguments.experiment)
    if arguments.quick:
        print(json.dumps(experiment.run(host, arguments.seeds[0], **experiment.QUICK), indent=1))
        return
    for cell in chosen(experiment, dict(item.split("=", 1) for item in arguments.only)):
        for seed in arguments.seeds:
            if not is_done(arguments.experiment, arguments.host, seed, cell):
                run(host, arguments.experiment, seed, cell)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    parser.add_argument("experiment", choices=[*experiments.NAMES, "report"])
    parser.add_argument("--host", choices=records.HOSTS, default="pyro")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="run for seconds, and only print")
    parser.add_argument("--only", nargs="+", default=[], metavar="SETTING=VALUE", help="of cells")
    return parser.parse_args(argv)


def chosen(experiment: Any, only: dict[str, str]) -> list[dict[str, Any]]:
    """Select the cells whose settings are given; optional ones where they are named."""
    cells = experiment.CELLS + (getattr(experiment, "OPTIONAL", []) if only else [])
    return [cell for cell in cells if all(str(cell[key]) == only[key] for key in only)]


def is_done(experiment: str, host: str, seed: int, cell: dict[str, Any]) -> bool:
    key = {"host": host, "seed": seed, "settings": cell}
    rows = [row for row in records.read(experiment) if not records.is_carried_over(row)]
    return any(key.items() <= row.items() for row in rows)


def run(host: Any, experiment: str, seed: int, cell: dict[str, Any]) -> None:
    """Run a cell, and record and print its figures."""
    start = time.perf_counter()
    figures = experiments.load(experiment).run(host, seed, **cell)
    record = {
        "experiment": experiment,
        "host": host.NAME,
        "seed": seed,
        "settings": cell,
        "figures": figures,
        "seconds": round(time.perf_counter() - start, 1),
        "commit": records.commit(),
        "versions": records.versions(host.PACKAGES),
    }
    records.append(record)
    print(json.dumps(record, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
