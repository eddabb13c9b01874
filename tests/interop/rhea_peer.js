// A stock rhea peer; the verbs are those of python_peer.py. NODE_PATH names the folder that rhea is in.
'use strict';

const fs = require('fs');
const rhea = require('rhea');

const CREDIT = 10;
const say = (...words) => console.log(words.join(' '));

function connect(at) {
  const [host, port] = at.split(':');
  return rhea.connect({host, port: Number(port), reconnect: false});
}

function send(at, node, ...bodies) {
  const connection = connect(at);
  const of = new Map();
  let sent = 0;
  let ended = 0;
  const end = (...words) => {
    say(...words);
    if (++ended === bodies.length) connection.close();
  };
  rhea.on('sendable', ({sender}) => {
    for (; sent < bodies.length && sender.sendable(); ++sent) {
      of.set(sender.send({body: bodies[sent], message_id: bodies[sent]}).id, bodies[sent]);
    }
  });
  rhea.on('accepted', ({delivery}) => end('accepted', of.get(delivery.id)));
  rhea.on('rejected', ({delivery}) => {
    const error = delivery.remote_state.error;
    end('rejected', of.get(delivery.id), error.condition, error.description);
  });
  // rhea tells of a modified one by this event, too.
  rhea.on('released', ({delivery}) => {
    end(delivery.remote_state.constructor.composite_type, of.get(delivery.id));
  });
  rhea.on('sender_error', ({sender}) => {
    say('refused', sender.error.condition);
    connection.close();
  });
  connection.open_sender(node);
}

function request(at, node, ...bodies) {
  const connection = connect(at);
  const sender = connection.open_sender(node);
  let asked = 0;
  let answered = 0;
  let replyTo;
  const ask = () => {
    for (; replyTo && asked < bodies.length && sender.sendable(); ++asked) {
      const name = asked % 2 ? {correlation_id: asked} : {message_id: asked};
      sender.send({body: bodies[asked], reply_to: replyTo, ...name});
    }
  };
  rhea.on('receiver_open', ({receiver}) => {
    replyTo = receiver.source.address;
    ask();
  });
  rhea.on('sendable', ask);
  rhea.on('message', ({message}) => {
    say('reply', message.body, message.correlation_id);
    if (++answered === bodies.length) connection.close();
  });
  connection.open_receiver({source: {dynamic: true}});
}

function receive(behaviour, marks) {
  const file = fs.openSync(marks, 'a');
  const seen = new Set();
  const counts = new Map();
  const options = {credit_window: CREDIT, autoaccept: false};
  if (behaviour === 'second') options.rcv_settle_mode = 1;
  const listener = rhea.listen({host: '127.0.0.1', port: 0, receiver_options: options});
  listener.on('listening', () => say('listening', listener.address().port));
  rhea.on('receiver_open', ({receiver}) => receiver.set_target({address: receiver.target.address}));
  rhea.on('message', ({message, delivery, receiver, connection}) => {
    fs.writeSync(file, `${message.message_id} ${message.delivery_count || 0}\n`);
    const first = !seen.has(message.message_id);
    seen.add(message.message_id);
    if (behaviour === 'close' || behaviour === 'detach') {
      const where = behaviour === 'close' ? connection : receiver;
      counts.set(where, (counts.get(where) || 0) + 1);
      if (counts.get(where) >= 10) {
        where.close({condition: 'amqp:internal-error', description: 'out of order'});
        return;
      }
    }
    if (behaviour === 'mute') return;
    if (behaviour === 'reject') {
      delivery.reject({condition: 'shop:sold-out', description: 'no more of these'});
    } else if (behaviour === 'undeliverable') {
      delivery.modified({undeliverable_here: true});
    } else if (behaviour === 'release-all' || (behaviour === 'release' && first)) {
      delivery.release();
    } else if (behaviour === 'modify' && first) {
      delivery.modified({delivery_failed: true});
    } else {
      delivery.accept();  // with rcv_settle_mode 1 rhea leaves it to the sender to settle
    }
  });
}

// Our ends come and go as the tests want it.
for (const event of ['disconnected', 'connection_close', 'connection_error', 'error', 'receiver_error', 'session_error']) {
  rhea.on(event, () => {});
}
const [verb, ...args] = process.argv.slice(2);
({send, request, receive})[verb](...args);
