"""The variable service: params, counters and stop, between processes.

`server.VariableServer` runs in a process of its own; every worker has one
`client.VariableClient`. The protocol stands in `wire`, what lets hosts trust
each other in `keys`.
"""
