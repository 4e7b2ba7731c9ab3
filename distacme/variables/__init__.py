"""The variable service: params, counters and stop, between processes.

`server.VariableServer` runs in a process of its own; every worker has one
`client.VariableClient`. `wire` describes the protocol.
"""
