"""Network namespaces: machines of their own as far as the network goes, joined by a bridge. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess


def can_be_made() -> bool:
    """Whether this process may make them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    try:
        with Network() as network:
            network.machine(2)
    except subprocess.CalledProcessError:
        return False
    return True


class Network:
    """A bridge of this machine at ``10.77.0.1``, and namespaces on it, each at ``10.77.0.<number>``."""

    HERE = "10.77.0.1"

    def __init__(self) -> None:
        self.interface = f"sftrl{os.getpid() % 10_000}"
        self._names: list[str] = []

    def __enter__(self) -> Network:
        _ip(f"link add {self.interface} type bridge")
        _ip(f"addr add {self.HERE}/24 dev {self.interface}")
        _ip(f"link set {self.interface} up")
        return self

    def machine(self, number: int) -> list[str]:
        """Make the namespace at ``10.77.0.<number>``; the words to put before a command that runs there."""
        name, outside = f"{self.interface}-{number}", f"sf{os.getpid() % 10_000}v{number}"
        _ip(f"netns add {name}")
        self._names.append(name)
        # Both ends of the wire have the name of the bridge, so that one setting fits all machines.
        _ip(f"link add {outside} type veth peer name {self.interface} netns {name}")
        _ip(f"link set {outside} master {self.interface} up")
        _ip(f"-n {name} addr add 10.77.0.{number}/24 dev {self.interface}")
        _ip(f"-n {name} link set {self.interface} up")
        _ip(f"-n {name} link set lo up")
        return ["ip", "netns", "exec", name]

    def __exit__(self, *unused: object) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.interface], check=False, capture_output=True)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)
