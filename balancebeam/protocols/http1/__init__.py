"""
The HTTP/1.1 wire format (RFC 9110 and RFC 9112): parsers and encoders.

Requests and responses are parsed in the same stages, from the cheapest to the
most general:

1. Whole-head cache (`request_head`, `response_head`): the rest of a head, behind
   its first line, or without its framing fields, was parsed before.
2. Field-line cache (`fields`): each line was parsed before, or is parsed alone
   (`grammar`).
3. Rules (`request_rules`, and the functions of `response_head`): the fields that
   matter to a proxy are validated together, and the head to forward is built.

An earlier stage handles a head only if the later ones would give the same
result; the fuzzer compares them. A message that two recipients could interpret
differently is rejected and never repaired.

`body` finds the end of a body, `forwarded` reads addresses that proxies have
added, `local_reply` builds responses of the proxy's own.
"""
