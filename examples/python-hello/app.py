"""A greeting from Python: a `wasi:http` 0.2 handler."""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam

# Lives as long as the instance: see `podium.dev/instance-reuse` in the manifest.
answered = 0


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        global answered
        answered += 1
        path = request.path_with_query() or "/"
        text = f"{answered}\n" if path == "/count" else f"Hello from Python at {path}\n"
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(text.encode())
        OutgoingBody.finish(body, None)
