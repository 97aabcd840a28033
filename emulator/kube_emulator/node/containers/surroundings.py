"""What a container finds around itself, put together from its pod, its image and its volumes."""

import shutil
from collections.abc import Sequence

from kube_emulator.client import Object
from kube_emulator.node.containers.images import Image
from kube_emulator.node.containers.privileges import Privileges
from kube_emulator.node.containers.sandbox import Mount, Sandbox, interpreter_mounts
from kube_emulator.node.pods.setting import PodSetting

# Whom an image knows; the users of this machine are not among them.
KNOWN = {
    "passwd": "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}


def sandbox_of(
    container: Object,
    setting: PodSetting,
    image: Image,
    privileges: Privileges,
    mounts: Sequence[Mount],
) -> Sandbox:
    """A sandbox for one run, with a fresh /tmp and termination message."""
    own = setting.container_directory(container["name"])
    shutil.rmtree(own, ignore_errors=True)
    for name in ("root", "tmp"):
        (own / name).mkdir(parents=True)
    (own / "termination-log").touch()
    for name, text in KNOWN.items():
        (own / name).write_text(text)
    fixed = privileges.read_only_root
    message_path = container.get("terminationMessagePath", "/dev/termination-log")
    implied = [
        Mount(own / "tmp", "/tmp", fixed),  # noqa: S108
        *(Mount(own / name, f"/etc/{name}", fixed) for name in KNOWN),
        Mount(setting.hosts_file, "/etc/hosts", fixed),
        Mount(own / "termination-log", message_path),
    ]
    targets = {mount.target for mount in mounts}
    return Sandbox(
        root=own / "root",
        hostname=setting.hostname,
        mounts=[
            *(mount for mount in implied if mount.target not in targets),
            *interpreter_mounts(),
            *mounts,
        ],
        working_directory=container.get("workingDir") or image.working_directory,
        masked=setting.masked,
        privileges=privileges,
    )
