"""One Kubernetes node whose pods are isolated processes; it also binds pods, as a scheduler would.

`kubelet` watches pods and gives each a `pod.PodWorker`; a worker prepares `volumes`, then runs
each container through `container` -> `sandbox` -> `process`; `status` turns the containers'
records into what Kubernetes shows. It talks to the API server over HTTP only and runs against any.

A pod gets user, mount, PID and UTS namespaces of its own, its own root view, /tmp and /etc/hosts,
and dies with the node. Images are not run: `images` maps known names to programs of this host.
Accepted and not enforced: securityContext (runAsUser, readOnlyRootFilesystem, capabilities,
seccomp), CPU limits, ephemeral-storage and sizeLimit, network policies (pods share the host's
network, each with an address of 127.77.0.0/16), updates of mounted ConfigMaps and Secrets.
Pods run as the user who started the node and see that user's files: this isolates pods from each
other's mistakes, it is no security boundary.
"""
