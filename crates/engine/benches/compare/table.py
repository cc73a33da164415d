"""From samples to the table: medians, ratios, goals."""

import statistics

from rows import FIRST_TOKEN_GOAL, LOAD_GOAL, MEMORY_GOAL, SERVER

UNITS = {"decode": "tok/s", "prefill": "tok/s", "server": "tok/s", "memory": "x file", "load": "s/GB"}


def summary(samples):
    """Of one side; nothing when it was not measured."""
    if not samples:
        return None
    return {
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
        "samples": samples,
    }


def judge(row, samples, bandwidth, bytes_per_token):
    """One entry of the JSON file."""
    ours, theirs = summary(samples["ours"]), summary(samples["theirs"])
    entry = {
        "name": row.name,
        "model": row.model,
        "command": row.command,
        "unit": UNITS[row.work],
        "ours": ours,
        "theirs": theirs,
        "ratio": ours["median"] / theirs["median"],
        "goal": row.goal,
        "others_cores": statistics.mean(samples["others"]) if samples["others"] else 0,
    }
    if row.work in ("memory", "load"):
        entry["met"] = ours["median"] <= (MEMORY_GOAL if row.work == "memory" else LOAD_GOAL)
        return entry
    entry["met"] = entry["ratio"] >= row.goal
    if row.work == "decode" and row.command.startswith("decode 1 ") and bandwidth:
        for name, speed in (("median", bandwidth["median"]), ("best", bandwidth["max"])):
            entry[f"of_{name}_bandwidth"] = ours["median"] * bytes_per_token / (speed * 1e9)
        entry["bandwidth_goal"] = row.bandwidth_goal
        entry["met"] = entry["met"] and entry["of_median_bandwidth"] >= row.bandwidth_goal
    if row.work == "server":
        entry["first_token"] = first_token(samples)
        entry["met"] = entry["met"] and entry["first_token"]["ratio"] <= FIRST_TOKEN_GOAL
    return entry


def first_token(samples):
    """Seconds until the first token, over the clients of a round, then over the rounds."""
    sides = {}
    for side in ("ours", "theirs"):
        rounds = samples[f"{side}_first"]
        sides[f"{side}_p50"] = statistics.median(statistics.median(seconds) for seconds in rounds)
        sides[f"{side}_max"] = max(max(seconds) for seconds in rounds)
    return {**sides, "ratio": sides["ours_p50"] / sides["theirs_p50"], "goal": FIRST_TOKEN_GOAL}


def markdown(report):
    lines = [
        "| work | Caravan | llama.cpp | ratio | of the bandwidth | goal | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in report["rows"]:
        lines += row_lines(entry)
    lines += ["", *notes(report)]
    return "\n".join(lines)


def row_lines(entry):
    unit, verdict = entry["unit"], "yes" if entry["met"] else "no"
    ours, theirs = spread(entry["ours"]), spread(entry["theirs"])
    goal = f"{entry['goal']:g} x"
    if unit in ("x file", "s/GB"):
        yield f"| {entry['name']} | {ours} {unit} | {theirs} {unit} | | | at most {entry['goal']:g} | {verdict} |"
        return
    bandwidth = entry.get("of_median_bandwidth")
    if entry.get("bandwidth_goal"):
        goal += f", {entry['bandwidth_goal']:.0%}"
    share = "" if bandwidth is None else f"{bandwidth:.0%}"
    yield f"| {entry['name']} | {ours} {unit} | {theirs} {unit} | {entry['ratio']:.2f} | {share} | {goal} | {verdict} |"
    first = entry.get("first_token")
    if first:
        sides = [f"{first[side + '_p50']:.2f}, at most {first[side + '_max']:.2f} s" for side in ("ours", "theirs")]
        yield f"| first token, median | {sides[0]} | {sides[1]} | {first['ratio']:.2f} | | at most {first['goal']:.2f} x | |"


def spread(side):
    if side["median"] >= 100:
        digits = 0
    else:
        digits = 1 if side["median"] >= 10 else 2
    low, middle, high = (f"{side[key]:.{digits}f}" for key in ("min", "median", "max"))
    return f"{middle} [{low}-{high}]"


def notes(report):
    clients, prompt, tokens = SERVER
    machine = report["machine"]
    yield f"{machine['processor']}, {machine['processors']} processors, {report['threads']} threads a side; commit {report['commit']};"
    yield f"llama.cpp of llama-cpp-python {report['reference']}; {report['rounds']} rounds, the two sides in turn: median [least-most]."
    for model, speed in report["bandwidth"].items():
        yield f"Memory read beside {model}: median {speed['median']:.1f}, best {speed['max']:.1f} GB/s ({len(speed['samples'])} passes)."
    if any(entry["unit"] == "tok/s" and entry.get("first_token") for entry in report["rows"]):
        yield (
            f"Server: {clients} clients at once, prompts of {prompt} tokens, answers of {tokens}; ours is `caravan serve` over HTTP, "
            "theirs llama.cpp's C interface with llama-server's batching and without its HTTP (the Python package has no server that batches)."
        )
    others = max((entry["others_cores"] for entry in report["rows"]), default=0)
    if others > 0.1:
        yield f"The machine was not idle: other processes used up to {others:.1f} processors on average of a row. These figures are not to be trusted."
    if report["rounds"] < 5:
        yield f"{report['rounds']} rounds are too few to judge by; 5 are the least."
