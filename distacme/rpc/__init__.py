"""Calls between a run's processes over gRPC, which all services of a run share.

A service has a `server.Server`, and a client has a `line.Line`, which follows the
server to a new endpoint. `token` and `keys` keep everybody else out. `messages` is the
JSON of small messages.
"""
