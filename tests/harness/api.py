"""The native API as another language sees it: messages generated from the .proto files when a test first asks,
calls by gRPC's generic channel. Needs Debian's python3-grpcio, python3-protobuf and protobuf-compiler."""

import atexit
import contextlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # the harness starts programs while channels are open
import grpc  # noqa: E402

from harness import programs

_SERVICE = "/datawire.directory.v1."


def _generate():
    source = os.environ.get("DATAWIRE_SOURCE") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    proto = os.path.join(source, "proto")
    out = tempfile.mkdtemp(prefix="datawire-api-")
    atexit.register(shutil.rmtree, out, True)
    subprocess.run(["protoc", f"--proto_path={proto}", f"--python_out={out}",
                    os.path.join(proto, "datawire/directory/v1/directory.proto")], check=True, timeout=60)
    sys.path.insert(0, out)
    from datawire.directory.v1 import directory_pb2
    return directory_pb2


pb = _generate()


def _bytes(path):
    with open(path, "rb") as file:
        return file.read()


class Failed(Exception):
    """A call's gRPC status: `code` (grpc.StatusCode), `message`, and the Refusal of its details (None if it has none)."""

    def __init__(self, error):
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code, self.message, self.refusal = error.code(), error.details(), None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                self.refusal = pb.Refusal.FromString(value)


class Stream:
    """One open stream. `receive` waits for the next message; after the last one it raises Failed or returns None."""

    def __init__(self, call, outgoing=None):
        self._call, self._outgoing = call, outgoing
        self._incoming = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for message in self._call:
                self._incoming.put(message)
            self._incoming.put(None)
        except grpc.RpcError as error:
            self._incoming.put(Failed(error))

    def send(self, message):
        self._outgoing.put(message)

    def half_close(self):
        """Nothing more will be sent."""
        self._outgoing.put(None)

    def receive(self, deadline=10.0):
        try:
            message = self._incoming.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"no message within {deadline} s") from None
        if isinstance(message, Failed):
            raise message
        return message

    def receive_until(self, wanted, deadline=10.0, most=10_000):
        """The first message for which `wanted` is true."""
        for _ in range(most):
            message = self.receive(deadline)
            if message is None:
                raise AssertionError("the stream ended before")
            if wanted(message):
                return message
        raise AssertionError(f"not among {most} messages")

    def close(self):
        if self._outgoing is not None:
            self._outgoing.put(None)
        self._call.cancel()
        self._thread.join(10)


class Api:
    """One connection to a directory (a harness.programs.Directory, or HOST:PORT). Use it in a `with` block.

    `files`: certificates (harness.certificates.Files) to speak TLS with; a cert of None: only the server shows one.
    """

    def __init__(self, directory, files=None):
        address = directory if isinstance(directory, str) else directory.address
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self.channel = grpc.insecure_channel(address, options) if files is None else grpc.secure_channel(
            address, grpc.ssl_channel_credentials(*(path and _bytes(path) for path in (files.ca, files.key, files.cert))),
            options)
        self._streams = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in self._streams:
            stream.close()
        self.channel.close()

    def raw(self, method, request, timeout=10.0, metadata=None):
        """Bytes in, bytes out, any service: /grpc.health.v1.Health/Check."""
        try:
            return self.channel.unary_unary(method)(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise Failed(error) from None

    def _call(self, name, request, response, timeout=10.0):
        return response.FromString(self.raw(_SERVICE + name, request.SerializeToString(), timeout))

    def resolve(self, *addresses, timeout=10.0, **fields):
        return self._call("Directory/Resolve", pb.ResolveRequest(addresses=addresses, **fields), pb.ResolveResponse, timeout)

    def register(self, *pairs, op_id=b"", **spec):
        """Static records: (address, url) each."""
        request = pb.RegisterRequest(op_id=op_id)
        for address, url in pairs:
            request.registrations.add(address=address, endpoint=pb.EndpointSpec(url=url, **spec))
        return self._call("Directory/Register", request, pb.RegisterResponse)

    def withdraw(self, *pairs, op_id=b"", sessions_too=False):
        request = pb.WithdrawRequest(op_id=op_id, sessions_too=sessions_too)
        for address, url in pairs:
            request.withdrawals.add(address=address, url=url)
        return self._call("Directory/Withdraw", request, pb.WithdrawResponse)

    def set_policy(self, address, policy=None, **fields):
        """Without a policy: unset."""
        request = pb.SetPolicyRequest(address=address, policy=policy, unset=policy is None, **fields)
        return self._call("Directory/SetPolicy", request, pb.SetPolicyResponse)

    def get_policy(self, address):
        return self._call("Directory/GetPolicy", pb.GetPolicyRequest(address=address), pb.GetPolicyResponse)

    def list(self, **fields):
        return self._call("Directory/List", pb.ListRequest(**fields), pb.ListResponse)

    def explain(self, address):
        return self._call("Directory/Explain", pb.ExplainRequest(address=address), pb.ExplainResponse)

    def status(self):
        return self._call("Admin/Status", pb.StatusRequest(), pb.StatusResponse)

    def compare(self, timeout=20.0):
        return self._call("Admin/Compare", pb.CompareRequest(), pb.CompareResponse, timeout)

    def forget_node(self, node):
        return self._call("Admin/ForgetNode", pb.ForgetNodeRequest(node=node), pb.ForgetNodeResponse)

    def drain(self, timeout=10.0, **fields):
        return self._call("Directory/Drain", pb.DrainRequest(**fields), pb.DrainResponse, timeout)

    def history(self, address):
        return self._call("Directory/History", pb.HistoryRequest(address=address), pb.HistoryResponse)

    def sessions(self, **fields):
        return self._call("Admin/ListSessions", pb.ListSessionsRequest(**fields), pb.ListSessionsResponse)

    def end_session(self, session_id):
        return self._call("Admin/EndSession", pb.EndSessionRequest(id=session_id), pb.EndSessionResponse)

    def audit_tail(self, **fields):
        return self._call("Admin/AuditTail", pb.AuditTailRequest(**fields), pb.AuditTailResponse)

    def release_brake(self):
        return self._call("Admin/ReleaseBrake", pb.ReleaseBrakeRequest(), pb.ReleaseBrakeResponse)

    def _open(self, name, request, response):
        outgoing = queue.Queue()
        call = self.channel.stream_stream(_SERVICE + name, request.SerializeToString, response.FromString)(
            iter(outgoing.get, None))
        stream = Stream(call, outgoing)
        self._streams.append(stream)
        return stream

    def subscribe(self, *addresses):
        stream = self._open("Directory/Subscribe", pb.SubscribeRequest, pb.SubscribeResponse)
        if addresses:
            stream.send(pb.SubscribeRequest(add=[pb.SubscribeRequest.Held(address=address) for address in addresses]))
        return stream

    def tether(self, **hello):
        """Sends the hello if one is given."""
        stream = self._open("Directory/Tether", pb.TetherRequest, pb.TetherResponse)
        if hello:
            stream.send(pb.TetherRequest(hello=pb.TetherRequest.Hello(**hello)))
        return stream

    def watch(self, **fields):
        call = self.channel.unary_stream(_SERVICE + "Directory/Watch", pb.WatchRequest.SerializeToString,
                                         pb.WatchResponse.FromString)(pb.WatchRequest(**fields))
        stream = Stream(call)
        self._streams.append(stream)
        return stream


@contextlib.contextmanager
def refused(test, code):
    """Fails unless the block raises Failed with grpc.StatusCode `code`; the block's target gets it as `.failure`."""
    class Holder:
        failure = None
    holder = Holder()
    try:
        yield holder
    except Failed as failure:
        holder.failure = failure
        test.assertEqual(failure.code, code, failure.message)
    else:
        test.fail(f"not refused, {code.name} was expected")


def urls(answer):
    """The endpoints of one answer that are up."""
    return sorted(endpoint.url for endpoint in answer.row.endpoints if endpoint.state == pb.ENDPOINT_STATE_UP)


class WithDirectory:
    """For a test class: one directory and a connection to it, for all its tests."""

    @classmethod
    def setUpClass(cls):
        cls.directory = programs.Directory()
        cls.directory.__enter__()
        cls.api = Api(cls.directory)

    @classmethod
    def tearDownClass(cls):
        cls.api.__exit__()
        cls.directory.__exit__(None)
