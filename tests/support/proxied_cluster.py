"""A local cluster whose programs reach one another by way of proxies only, one for each pair."""

from dataclasses import replace
from pathlib import Path

import yaml

from cranecli.hookctl.local_cluster import LocalCluster
from cranecli.hookctl.local_config import CONTROLLER, LocalConfig
from tests.support.tcp_proxy import Network


class ProxiedCluster(LocalCluster):
    """The links are named `cn01>cranectld` (what a node says to the controller), `login>cranectld` (front ends), and `>cn01` (what the controller
    says to the node, and what goes between a launcher and its step there).
    """

    def __init__(self, config: LocalConfig) -> None:
        super().__init__(config=config)
        self.network = Network()

    def start(self) -> None:
        self.network.start()
        super().start()

    def stop(self) -> int:
        killed = super().stop()
        self.network.stop()
        return killed

    def _prepare(self) -> None:
        super()._prepare()
        document = yaml.safe_load(self.config_file.read_text())
        for node in document["Nodes"]:
            node["listen"] = node["address"]
            node["address"] = self.network.proxy(node["listen"], f">{node['name']}").address
        self._write(self.config_file, document)
        for name, daemon in self.daemons.items():
            if name == CONTROLLER:
                continue
            link = self.network.proxy(document["CranectldListen"], f"{name}>cranectld")
            own = self.config_file.with_name(f"config.{name}.yaml")
            self._write(own, {**document, "ControlAddress": link.address})
            argv = [str(own) if word == str(self.config_file) else word for word in daemon.argv]
            self.daemons[name] = replace(daemon, argv=tuple(argv))

    @staticmethod
    def _write(path: Path, document: dict[str, object]) -> None:
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        path.chmod(0o644)
