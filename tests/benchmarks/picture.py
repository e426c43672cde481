"""A picture of the results: ratios of each task, and growth of time and memory."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from harness import (
    BLACKJAX,
    COMPILED,
    EBMKIT,
    FUSED,
    IN_SVI,
    OURS,
    RUN_CHAINS,
    TORCHEBM,
    clock_of,
    ratios,
)

# Okabe and Ito's colours, and a mark for each beside.
STYLES = {
    OURS: ("#0072B2", "o"),
    IN_SVI: ("#56B4E9", "s"),
    FUSED: ("#CC79A7", "P"),
    RUN_CHAINS: ("#F0E442", "X"),
    COMPILED: ("#000000", "*"),
    EBMKIT: ("#D55E00", "^"),
    TORCHEBM: ("#E69F00", "v"),
    BLACKJAX: ("#009E73", "D"),
}
LARGEST = 4.0


def draw(results, path):
    hosts = list(dict.fromkeys(row["host"] for row in results["rows"]))
    heights = [sum(row["host"] == host for row in results["rows"]) for host in hosts]
    above, below = 0.24 * sum(heights) + 1, 4.5 * len(hosts)
    figure = plt.figure(figsize=(13, above + below), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(above, below))
    axes = top.subplots(len(hosts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, host in zip(axes, hosts, strict=True):
        _ratios(ax, [row for row in results["rows"] if row["host"] == host], host, results)
    panels = {host: _panels(results["growth"], host) for host in hosts}
    num_columns = max(1, *map(len, panels.values()))
    grid = bottom.subplots(2 * len(hosts), num_columns, squeeze=False)
    for index, host in enumerate(hosts):
        rows = grid[2 * index : 2 * index + 2]
        for column, lines in zip(rows.T, panels[host].values(), strict=False):
            _growth(column, lines)
        for ax in rows[:, len(panels[host]) :].flat:
            ax.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _ratios(ax, rows, host, results):
    clock, seen = clock_of(results["about"]), set()
    for y, row in enumerate(rows):
        for name, ratio in ratios(row, clock).items():
            if name not in STYLES:
                continue
            color, marker = STYLES[name]
            label = None if name in seen else name
            seen.add(name)
            x = min(ratio, LARGEST)
            ax.plot(x, y, marker, color=color, label=label, markersize=6, alpha=0.85)
            if ratio > LARGEST:
                ax.annotate(f"{ratio:.0f}", (x, y), (5, -3), textcoords="offset points", fontsize=7)
    ax.set_yticks(
        range(len(rows)), [f"{row['task']}, {row['network']}" for row in rows], fontsize=8
    )
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.axvline(1.0, color="0.6", linewidth=0.8, zorder=0)
    ax.grid(axis="x", color="0.9")
    ax.set_xscale("log")
    ticks = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    kind = "CPU" if clock == "cpu_ms" else "wall"
    ax.set_xlabel(
        f"{kind} time over that by hand, or over that of {EBMKIT} or {BLACKJAX} where there is none"
    )
    ax.set_title(host, loc="left", fontweight="bold")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _panels(growth, host):
    panels = {}
    for it in growth:
        if it["host"] == host:
            panels.setdefault((it["task"], it["axis"]), []).append(it)
    return panels


def _short(size):
    return f"{size // 1000}k" if size >= 10_000 else str(size)


def _growth(axes, lines):
    for line in lines:
        color, marker = STYLES.get(line["column"], ("#56B4E9", "s"))
        sizes = [point["size"] for point in line["points"]]
        for ax, key in zip(axes, ("wall_ms", "peak_mib"), strict=True):
            numbers = [max(point[key], 0.1) for point in line["points"]]
            ax.plot(sizes, numbers, marker=marker, color=color, label=line["column"], markersize=4)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xticks(sizes[::2], [_short(size) for size in sizes[::2]])
            ax.xaxis.minorticks_off()
            ax.tick_params(labelsize=7, which="both")
            ax.grid(color="0.9")
    axes[0].set_title(f"{lines[0]['host']}: {lines[0]['task']}", fontsize=7)
    axes[0].set_ylabel("wall time, ms", fontsize=7)
    axes[1].set_ylabel("peak memory, MiB", fontsize=7)
    axes[1].set_xlabel(lines[0]["axis"], fontsize=7)
    axes[1].legend(fontsize=6)
