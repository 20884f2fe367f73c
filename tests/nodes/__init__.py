# SPDX-License-Identifier: MIT
"""What tests/nodectl is made of; `exec` loads no more than it needs. Imports point down this list.

verbs      what the command line can say
inside     commands in a node (fast path)
disks      app images, the template, a new node's copy of it
standins   stand-ins for the images of the catalogue that have no recipe
power      a node's keeper, cgroup and network
layers     the host's tools, the base system, the package, the toolbox
families   main apps of the catalogue, what comes with each, and which can share a node
catalogue  what the manifests of the catalogue say
node       a node and what can be seen of it (fast path)
common     speaking, running, deleting, locks (fast path)
"""
