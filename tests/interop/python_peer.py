#!/usr/bin/env python3
"""A stock python-proton peer; rhea_peer.js is the same in rhea.

  send HOST:PORT NODE BODY...     a line for each outcome: `accepted BODY`, `rejected BODY CONDITION DESCRIPTION`,
                                  `released BODY`, `modified BODY`; a refused link: `refused CONDITION`
  request HOST:PORT NODE BODY...  a line for each: `reply TEXT CORRELATION`; they are numbered, by correlation id and by
                                  message id in turn
  receive BEHAVIOUR MARKS         listens on a port of the kernel's, prints `listening PORT`; appends to MARKS for each
                                  message `ID DELIVERY-COUNT`, before it is settled. BEHAVIOUR: accept, reject; release,
                                  modify (the first delivery of each id, then accept); release-all,
                                  undeliverable (every one); second (settles after the sender), close (after 10 messages
                                  ends each connection with an error), detach (so each link), mute (takes, settles nothing)
"""

import os
import socket
import sys

from proton import Condition, Delivery, Link, Message
from proton.handlers import MessagingHandler
from proton.reactor import Container

CREDIT = 10


def say(*words):
    print(*words, flush=True)


class Sends(MessagingHandler):
    def __init__(self, url, node, bodies):
        super().__init__(auto_settle=False)
        self.url, self.node, self.bodies = url, node, bodies
        self.sent, self.ended, self.of = 0, 0, {}

    def on_start(self, event):
        self.connection = event.container.connect(self.url, reconnect=False)
        event.container.create_sender(self.connection, self.node)

    def on_sendable(self, event):
        while event.sender.credit and self.sent < len(self.bodies):
            body = self.bodies[self.sent]
            self.of[event.sender.send(Message(body, id=body))] = body
            self.sent += 1

    def on_settled(self, event):
        delivery = event.delivery
        body, remote = self.of[delivery], delivery.remote
        word = {Delivery.ACCEPTED: "accepted", Delivery.REJECTED: "rejected", Delivery.RELEASED: "released",
                Delivery.MODIFIED: "modified"}[delivery.remote_state]
        condition = (remote.condition.name, remote.condition.description) if word == "rejected" else ()
        say(word, body, *condition)
        delivery.settle()
        self.ended += 1
        if self.ended == len(self.bodies):
            self.connection.close()

    def on_link_error(self, event):
        say("refused", event.link.remote_condition.name)
        event.connection.close()


class Requests(MessagingHandler):
    def __init__(self, url, node, bodies):
        super().__init__()
        self.url, self.node, self.bodies = url, node, bodies
        self.asked = self.answered = 0

    def on_start(self, event):
        connection = event.container.connect(self.url, reconnect=False)
        self.receiver = event.container.create_receiver(connection, None, dynamic=True)
        self.sender = event.container.create_sender(connection, self.node)

    def on_link_opened(self, event):
        if event.receiver == self.receiver:
            self.ask()

    def on_sendable(self, _):
        self.ask()

    def ask(self):
        reply_to = self.receiver.remote_source.address
        while reply_to and self.sender.credit and self.asked < len(self.bodies):
            name = {"correlation_id": self.asked} if self.asked % 2 else {"id": self.asked}
            self.sender.send(Message(self.bodies[self.asked], reply_to=reply_to, **name))
            self.asked += 1

    def on_message(self, event):
        say("reply", event.message.body, repr(event.message.correlation_id))
        self.answered += 1
        if self.answered == len(self.bodies):
            event.connection.close()


class Receives(MessagingHandler):
    def __init__(self, behaviour, marks):
        super().__init__(prefetch=CREDIT, auto_accept=False, auto_settle=False)
        self.behaviour, self.marks = behaviour, open(marks, "a", encoding="utf-8")
        self.seen, self.count = set(), {}

    def on_start(self, event):
        acceptor = event.container.acceptor("127.0.0.1", 0)
        with socket.socket(fileno=os.dup(acceptor._selectable.fileno())) as listening:
            say("listening", listening.getsockname()[1])

    def on_link_opening(self, event):
        event.link.target.address = event.link.remote_target.address
        if self.behaviour == "second":
            event.link.rcv_settle_mode = Link.RCV_SECOND

    def on_message(self, event):
        message, delivery = event.message, event.delivery
        self.marks.write(f"{message.id} {message.delivery_count}\n")
        self.marks.flush()
        first = message.id not in self.seen
        self.seen.add(message.id)
        behaviour = self.behaviour
        if behaviour in ("close", "detach"):
            where = event.connection if behaviour == "close" else event.link
            self.count[where] = self.count.get(where, 0) + 1
            if self.count[where] >= 10:
                where.condition = Condition("amqp:internal-error", "out of order")
                where.close()
                return
        if behaviour == "mute":
            return
        if behaviour == "reject":
            delivery.local.condition = Condition("shop:sold-out", "no more of these")
            self.settle(delivery, Delivery.REJECTED)
        elif behaviour == "undeliverable":
            delivery.local.undeliverable = True
            self.settle(delivery, Delivery.MODIFIED)
        elif behaviour == "release-all" or (behaviour == "release" and first):
            self.settle(delivery, Delivery.RELEASED)
        elif behaviour == "modify" and first:
            delivery.local.failed = True
            self.settle(delivery, Delivery.MODIFIED)
        elif behaviour == "second":
            delivery.update(Delivery.ACCEPTED)
        else:
            self.settle(delivery, Delivery.ACCEPTED)

    def on_settled(self, event):
        event.delivery.settle()


def main(verb, *args):
    if verb == "receive":
        handler = Receives(*args)
    else:
        handler = {"send": Sends, "request": Requests}[verb](args[0], args[1], args[2:])
    Container(handler).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
