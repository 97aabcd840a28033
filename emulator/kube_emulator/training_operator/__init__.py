"""A stand-in for Kubeflow training-operator v1.9.4: PyTorchJobs become pods and services.

`crd` installs the kind, `pods` builds what a job wants (pure), `status` judges what it has (pure),
`controller` compares and writes. It keeps the quirks that a client must live with: its variables
come after the user's, RANK is the node's rank, Failed is sticky, a vanished pod is made again
without a word, deadlines pass unnoticed until something else happens.

Left out: elasticPolicy, gang scheduling, autoscaling, other job kinds. Different on purpose: each
job gets a port of its own, because all pods share one host.
"""
