"""Reads what a daemon exports to Prometheus."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def scrape(address: str) -> dict[str, float]:
    """Every sample by its name and its labels in order of their names: `crane_jobs{state="running"}`."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {_name(sample): sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def _name(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name
