# SPDX-License-Identifier: MIT
"""What tests/nodectl is made of; `exec` loads no more than it needs. Imports point down this list.

verbs   what the command line can say
inside  commands in a node (fast path)
disks   app images, the template, a new node's copy of it
power   a node's keeper, cgroup and network
layers  the host's tools, the base system, the package, the toolbox
node    a node and what can be seen of it (fast path)
common  speaking, running, deleting, locks (fast path)
"""
