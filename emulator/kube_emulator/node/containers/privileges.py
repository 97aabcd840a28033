"""What a container's processes may do: user, capabilities, root file system, as a securityContext
and an image say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kube_emulator.client import Object
from kube_emulator.node.containers.environment import ConfigError
from kube_emulator.node.containers.images import Image

# What containerd grants.
DEFAULT_CAPABILITIES = frozenset(
    {"audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod"}
    | {"net_bind_service", "net_raw", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot"}
)


@dataclass(frozen=True)
class Privileges:
    """Of one container; as they stand here, those of an image and a pod that ask for nothing.

    `gain` is whether set-user-ID programs may add to them.
    """

    user: int = 0
    group: int = 0
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    gain: bool = True
    read_only_root: bool = False

    @classmethod
    def of(cls, pod: Object, container: Object, image: Image) -> Privileges:
        """Read the securityContext of a container and that of its pod.

        Raises:
            ConfigError: the container must not run as root, and would.
        """
        own = container.get("securityContext", {})
        context = pod["spec"].get("securityContext", {}) | own
        user = context.get("runAsUser", image.user)
        if context.get("runAsNonRoot") and user == 0:
            raise ConfigError(_would_be_root("runAsUser" in context, pod, container))
        capabilities = own.get("capabilities", {})
        return cls(
            user=user,
            # a user whom the image does not know has no group of its own
            group=context.get("runAsGroup", image.group if user == image.user else 0),
            capabilities=_without(DEFAULT_CAPABILITIES, capabilities.get("drop", []))
            | frozenset(name.lower() for name in capabilities.get("add", [])),
            gain=own.get("allowPrivilegeEscalation", True),
            read_only_root=own.get("readOnlyRootFilesystem", False),
        )

    @property
    def home(self) -> str:
        """HOME, where neither image nor pod sets it."""
        return "/root" if self.user == 0 else "/"

    @property
    def options(self) -> list[str]:
        """Those of `setpriv`, for who holds every capability of the container's user namespace."""
        kept = "".join(f",+{name}" for name in sorted(self.capabilities))
        # what is not inheritable is not ambient either
        none = "--inh-caps=-all"
        return [f"--bounding-set=-all{kept}", none, *self.options_without_capabilities]

    @property
    def options_without_capabilities(self) -> list[str]:
        """Those of `setpriv`, for who holds none: any user but root, after `execve`."""
        return [] if self.gain else ["--no-new-privs"]


def _without(capabilities: frozenset[str], dropped: Sequence[str]) -> frozenset[str]:
    names = {name.lower() for name in dropped}
    return frozenset() if "all" in names else capabilities - names


def _would_be_root(said: bool, pod: Object, container: Object) -> str:
    meta = pod["metadata"]
    where = f'pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", '
    where += f"container: {container['name']}"
    if said:
        return f"container's runAsUser breaks non-root policy ({where})"
    return f"container has runAsNonRoot and image will run as root ({where})"
