"""RabbitMQ with its AMQP 1.0 plugin: a broker that has never heard of us."""

import contextlib
import os

from harness import programs
from harness.programs import Program, free_port

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in PATH changes the user


class Broker:
    """Starts in a few seconds; `queue(name)` is the URL of a queue, made at its first use."""

    def __enter__(self):
        folder, self._stack = programs.scratch("broker"), contextlib.ExitStack()
        self._port, names = free_port(), free_port()
        with open(os.path.join(folder, "rabbitmq.conf"), "w", encoding="utf-8") as file:
            file.write(f"listeners.tcp.local = 127.0.0.1:{self._port}\namqp1_0.default_user = guest\nlog.console = true\n")
        with open(os.path.join(folder, "plugins"), "w", encoding="utf-8") as file:
            file.write("[rabbitmq_amqp1_0].\n")
        environment = {
            "HOME": folder, "RABBITMQ_NODENAME": f"dw{self._port}@localhost", "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": os.path.join(folder, "mnesia"), "RABBITMQ_LOG_BASE": os.path.join(folder, "log"),
            "RABBITMQ_CONFIG_FILE": os.path.join(folder, "rabbitmq.conf"), "RABBITMQ_PID_FILE": os.path.join(folder, "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(folder, "plugins"), "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1"}
        try:
            # Else the first Erlang program starts one that outlives it.
            self._stack.enter_context(Program("/usr/bin/epmd", "-port", names, env=environment, label="epmd"))
            server = self._stack.enter_context(Program(SERVER, env=environment, label="broker"))
            server.wait_for_line("startup complete", 120)
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, None)
            raise
        return self

    def __exit__(self, *failure):
        return self._stack.__exit__(*failure)

    def queue(self, name):
        return f"amqp://127.0.0.1:{self._port}//queue/{name}"
