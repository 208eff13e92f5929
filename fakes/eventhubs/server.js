// A stand-in for Azure Event Hubs, spoken to over AMQP 1.0. doc.go says what it does and how it differs
// from the service; server.go starts it and sends the control lines.
'use strict';

const crypto = require('crypto');
const path = require('path');
const readline = require('readline');

const rhea = require(path.join(process.env.MILLSTREAM_RHEA, 'rhea'));
const {types, message: codec} = rhea;

const BATCH_FORMAT = 0x80013700; // Data sections that hold encoded messages
const MAX_PLAIN_READERS = 5; // without owner level, of one partition and consumer group
const NO_EVENT = Buffer.alloc(0);

const options = JSON.parse(process.env.MILLSTREAM_OPTIONS || '{}');
const maxMessageSize = options.max_message_size || 1 << 20;
const hubs = new Map();
const connections = new Set();
const counts = {connections: 0, attached: 0, stolen: 0, refused: 0, throttled: 0, silenced: 0, disconnected: 0, batches: 0, events: 0, lost_replies: 0, management: 0};
const faults = {refuse_tokens: false, hang_management: false};

// ---- the store

class Partition {
  constructor(hub, id) {
    this.hub = hub;
    this.id = id;
    this.events = []; // {offset, sequence, enqueued, key, body (encoded message), raw (with annotations)}
    this.first = 0; // sequence number of events[0]
    this.next = 0;
    this.offset = 0;
    this.last = {offset: '-1', enqueued: 0};
    this.readers = new Set();
    this.throttled = false;
  }

  append(encoded, key, enqueued) {
    const e = {sequence: this.next++, offset: String(this.offset), enqueued, key};
    this.offset += encoded.length + 64;
    e.raw = annotate(encoded, e);
    this.events.push(e);
    this.last = e;
    counts.events++;
  }

  // from is the index of the first event that a start position asks for.
  from(start) {
    const before = {
      offset: (e) => start.value === '@latest' ? true : Number(e.offset) < Number(start.value) || !start.inclusive && e.offset === start.value,
      sequence: (e) => e.sequence < Number(start.value) || !start.inclusive && e.sequence === Number(start.value),
      time: (e) => e.enqueued < Number(start.value) || !start.inclusive && e.enqueued === Number(start.value),
    }[start.by];
    let low = 0, high = this.events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (before(this.events[middle])) low = middle + 1; else high = middle;
    }
    return this.first + low;
  }

  // trim drops the events below a sequence number, as retention does.
  trim(to) {
    const n = Math.min(Math.max(to - this.first, 0), this.events.length);
    this.events.splice(0, n);
    this.first += n;
  }
}

class Hub {
  constructor(name, partitions, groups) {
    this.name = name;
    this.created = Date.now();
    this.groups = new Set(['$default', ...(groups || []).map((g) => g.toLowerCase())]);
    this.partitions = Array.from({length: partitions}, (_, i) => new Partition(this, String(i)));
    this.turn = 0;
    this.writers = new Set();
    this.busy = false; // refuses what is sent
    this.loseReplies = 0;
  }

  // pick is where an event without a partition goes: by its key, or in turn. The service's hash is another.
  pick(key) {
    const n = this.partitions.length;
    if (key === undefined) return this.partitions[this.turn++ % n];
    return this.partitions[crypto.createHash('md5').update(key).digest().readUInt32BE(0) % n];
  }
}

// ---- encoding: annotations are spliced into the bytes as they came

function annotate(encoded, e) {
  if (encoded[2] === 0x70 || encoded[2] === 0x71 || encoded[2] === 0x72) { // sections that stand before or are annotations
    const m = codec.decode(encoded);
    m.message_annotations = Object.assign({}, m.message_annotations, {
      'x-opt-sequence-number': types.wrap_long(e.sequence), 'x-opt-offset': types.wrap_string(e.offset), 'x-opt-enqueued-time': types.wrap_timestamp(e.enqueued),
    }, e.key === undefined ? {} : {'x-opt-partition-key': types.wrap_string(e.key)});
    return codec.encode(m);
  }
  const parts = [];
  const put = (name, ...value) => parts.push(Buffer.from([0xa3, name.length]), Buffer.from(name), ...value);
  put('x-opt-sequence-number', long(0x81, e.sequence));
  put('x-opt-offset', text(e.offset));
  put('x-opt-enqueued-time', long(0x83, e.enqueued));
  if (e.key !== undefined) put('x-opt-partition-key', text(e.key));
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(12);
  head.set([0x00, 0x53, 0x72, 0xd1]);
  head.writeUInt32BE(body.length + 4, 4);
  head.writeUInt32BE(e.key === undefined ? 6 : 8, 8);
  return Buffer.concat([head, body, encoded]);
}

function long(code, n) {
  const b = Buffer.alloc(9);
  b[0] = code;
  b.writeBigInt64BE(BigInt(n), 1);
  return b;
}

function text(s) {
  const b = Buffer.from(s);
  const head = Buffer.alloc(5);
  head[0] = 0xb1;
  head.writeUInt32BE(b.length, 1);
  return Buffer.concat([head, b]);
}

// dataSection encodes a message of one Data section, as the control channel's events are.
function dataSection(bytes) {
  const head = Buffer.from([0x00, 0x53, 0x75, 0xb0, 0, 0, 0, 0]);
  head.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([head, bytes]);
}

// ---- links

// An exception in a handler would end the connection in silence, so each is told and ends the program.
function told(handler) {
  return (context) => {
    try {
      handler(context);
    } catch (error) {
      console.error(error.stack);
      process.exit(3);
    }
  };
}

const notFound = (what) => ({condition: 'amqp:not-found', description: `The messaging entity '${what}' could not be found.`});
const serverBusy = {condition: 'com.microsoft:server-busy', description: 'The request was terminated because the entity is being throttled. Error code : 50002.'};
const stolen = (description) => ({condition: 'amqp:link:stolen', description});

function refuse(link, error) {
  counts.refused++;
  link.set_source({});
  link.local.attach.source = undefined;
  link.local.attach.target = undefined;
  link.close(error);
}

function echo(link) {
  link.set_source({address: link.source && link.source.address});
  link.set_target({address: link.target && link.target.address});
}

// consumer paths are HUB/ConsumerGroups/GROUP/Partitions/ID
function openReader(link, address) {
  const [hubName, , group, , id] = address.split('/');
  const hub = hubs.get(hubName.toLowerCase());
  if (!hub || !hub.groups.has(group.toLowerCase())) return refuse(link, notFound(address));
  const partition = hub.partitions[Number(id)];
  if (!partition) {
    return refuse(link, {condition: 'com.microsoft:argument-out-of-range', description: `The specified partition is invalid for an EventHub partition sender or receiver. It should be between 0 and ${hub.partitions.length - 1}.`});
  }
  if (partition.throttled) {
    counts.throttled++;
    return refuse(link, serverBusy);
  }
  const epoch = link.properties && link.properties['com.microsoft:epoch'];
  const reader = {link, partition, group: group.toLowerCase(), epoch: epoch === undefined ? undefined : Number(epoch), sent: 0, mute: false};
  const others = [...partition.readers].filter((r) => r.group === reader.group);
  const highest = Math.max(-1, ...others.map((r) => r.epoch === undefined ? -1 : r.epoch));
  if (reader.epoch === undefined) {
    if (highest >= 0) return refuse(link, stolen(`At least one receiver for the endpoint is created with epoch of '${highest}', and so non-epoch receiver is not allowed.`));
    if (others.length >= MAX_PLAIN_READERS) {
      return refuse(link, {condition: 'amqp:resource-limit-exceeded', description: `Exceeded the maximum number of allowed receivers per partition in a consumer group which is ${MAX_PLAIN_READERS}.`});
    }
  } else {
    if (highest > reader.epoch) return refuse(link, stolen(`Receiver with a higher epoch of '${highest}' already exists. Receiver with epoch ${reader.epoch} cannot be created.`));
    for (const r of others) {
      counts.stolen++;
      closeReader(r, stolen(`New receiver with higher epoch of '${reader.epoch}' is created hence current receiver with epoch '${r.epoch}' is getting disconnected.`));
    }
  }
  reader.next = partition.from(startPosition(link));
  echo(link);
  link.local.attach.snd_settle_mode = 1;
  counts.attached++;
  partition.readers.add(reader);
  link.reader = reader;
  link.on('sendable', told(() => pump(reader)));
  link.on('sender_close', told(() => partition.readers.delete(reader)));
}

function closeReader(reader, error) {
  reader.partition.readers.delete(reader);
  reader.link.close(error);
}

function startPosition(link) {
  const filter = link.source && link.source.filter && link.source.filter['apache.org:selector-filter:string'];
  const text = String(filter && filter.value !== undefined ? filter.value : filter || '');
  const m = /amqp\.annotation\.x-opt-(offset|sequence-number|enqueued-time(?:-utc)?) *(>=?) *'([^']*)'/.exec(text);
  if (!m) return {by: 'offset', value: '@latest'};
  return {by: {o: 'offset', s: 'sequence', e: 'time'}[m[1][0]], inclusive: m[2] === '>=', value: m[3]};
}

// pump sends what the reader has credit for. A delivery takes its credit only when it is written, so
// those that are queued are subtracted.
function pump(reader) {
  const {link, partition} = reader;
  if (reader.mute || !partition.readers.has(reader) || !link.is_open()) return;
  const out = link.session.outgoing;
  reader.next = Math.max(reader.next, partition.first);
  let room = Math.min(link.credit - (out.next_delivery_id - out.next_pending_delivery), out.available());
  for (; room > 0 && reader.next < partition.next; room--) {
    link.send(partition.events[reader.next++ - partition.first].raw, undefined, 0);
  }
  if (reader.next < partition.next && link.credit > 0 && !reader.again) {
    reader.again = setImmediate(told(() => { reader.again = undefined; pump(reader); }));
  }
}

// producer paths are HUB and HUB/Partitions/ID
function openWriter(link, address) {
  const [hubName, , id] = address.split('/');
  const hub = hubs.get(hubName.toLowerCase());
  if (!hub) return refuse(link, notFound(address));
  const fixed = id === undefined ? undefined : hub.partitions[Number(id)];
  if (id !== undefined && !fixed) return refuse(link, notFound(address));
  echo(link);
  link.local.attach.max_message_size = maxMessageSize;
  hub.writers.add(link);
  link.on('receiver_close', told(() => hub.writers.delete(link)));
  link.on('message', told(({message, delivery, format}) => {
    if (hub.busy) {
      counts.throttled++;
      return delivery.reject(serverBusy);
    }
    let key, encoded;
    if (format === BATCH_FORMAT) {
      const envelope = codec.decode(message);
      key = envelope.message_annotations && envelope.message_annotations['x-opt-partition-key'];
      encoded = envelope.body === undefined ? [] : envelope.body.multiple ? envelope.body.content : [envelope.body.content];
    } else {
      key = message.message_annotations && message.message_annotations['x-opt-partition-key'];
      encoded = [codec.encode(message)];
    }
    counts.batches++;
    publish(hub, fixed, key, encoded);
    if (hub.loseReplies > 0) {
      hub.loseReplies--;
      counts.lost_replies++;
      return drop(link.connection);
    }
    delivery.accept();
  }));
}

function publish(hub, fixed, key, encoded) {
  const p = fixed || hub.pick(key);
  const now = Date.now();
  for (const e of encoded) p.append(e, key, now);
  for (const r of p.readers) pump(r);
}

// ---- requests: $cbs and $management answer on the link whose target is the request's reply-to

const replies = (connection) => connection.replies || (connection.replies = new Map());

function openRequests(link, address) {
  echo(link);
  link.on('message', told(({message, delivery, connection}) => {
    delivery.accept();
    const answer = address === '$cbs' ? putToken(message) : manage(message);
    const to = replies(connection).get(message.reply_to);
    if (!answer || !to) return;
    to.send({
      correlation_id: message.message_id,
      application_properties: {'status-code': types.wrap_int(answer.status), 'status-description': answer.description},
      body: answer.body,
    });
  }));
}

function openReplies(link) {
  echo(link);
  link.local.attach.snd_settle_mode = 1;
  const address = link.target && link.target.address;
  const of = replies(link.connection);
  of.set(address, link);
  link.on('sender_close', told(() => of.delete(address)));
}

function putToken(m) {
  if (faults.refuse_tokens || (m.application_properties || {}).operation !== 'put-token') {
    return {status: 401, description: 'InvalidSignature: The token has an invalid signature.'};
  }
  return {status: 202, description: 'Accepted'};
}

function manage(m) {
  counts.management++;
  if (faults.hang_management) return undefined;
  const p = m.application_properties || {};
  const hub = hubs.get(String(p.name).toLowerCase());
  if (!hub) return {status: 404, description: `The messaging entity '${p.name}' could not be found.`};
  if (hub.partitions.some((q) => q.throttled)) {
    counts.throttled++;
    return {status: 503, description: serverBusy.description};
  }
  if (p.type === 'com.microsoft:eventhub') {
    return ok({
      name: types.wrap_string(hub.name), type: types.wrap_string('com.microsoft:eventhub'),
      created_at: types.wrap_timestamp(hub.created), partition_count: types.wrap_int(hub.partitions.length),
      partition_ids: types.wrap_array(hub.partitions.map((q) => q.id), 0xa1), georeplication_factor: types.wrap_int(1),
    });
  }
  const q = hub.partitions[Number(p.partition)];
  if (p.type !== 'com.microsoft:partition' || !q) return {status: 400, description: `The specified partition '${p.partition}' is invalid.`};
  return ok({
    name: types.wrap_string(hub.name), type: types.wrap_string('com.microsoft:partition'), partition: types.wrap_string(q.id),
    begin_sequence_number: types.wrap_long(q.first), last_enqueued_sequence_number: types.wrap_long(q.next - 1),
    last_enqueued_offset: types.wrap_string(q.last.offset), last_enqueued_time_utc: types.wrap_timestamp(q.last.enqueued),
    is_partition_empty: types.wrap_boolean(q.events.length === 0),
  });
}

const ok = (body) => ({status: 200, description: 'OK', body: types.wrap_map(body)});

// ---- connections

const container = rhea.create_container({id: 'eventhubs'});
container.sasl_server_mechanisms.enable_anonymous();

container.on('connection_open', told(({connection}) => { counts.connections++; connections.add(connection); }));
for (const event of ['connection_close', 'disconnected']) {
  container.on(event, told(({connection}) => forget(connection)));
}
for (const event of ['connection_error', 'session_error', 'sender_error', 'receiver_error', 'protocol_error', 'error']) container.on(event, () => {});
container.on('session_close', told(({session}) => {
  for (const hub of hubs.values()) {
    for (const p of hub.partitions) for (const r of p.readers) if (r.link.session === session) p.readers.delete(r);
  }
}));

container.on('sender_open', told(({sender}) => {
  const address = sender.source && sender.source.address || '';
  if (address === '$cbs' || address.endsWith('$management')) return openReplies(sender);
  return openReader(sender, address);
}));
container.on('receiver_open', told(({receiver}) => {
  const address = receiver.target && receiver.target.address || '';
  if (address === '$cbs' || address.endsWith('$management')) return openRequests(receiver, address);
  return openWriter(receiver, address);
}));

function forget(connection) {
  connections.delete(connection);
  for (const hub of hubs.values()) {
    for (const p of hub.partitions) for (const r of p.readers) if (r.link.connection === connection) p.readers.delete(r);
    for (const w of hub.writers) if (w.connection === connection) hub.writers.delete(w);
  }
}

function drop(connection) {
  counts.disconnected++;
  forget(connection);
  connection.socket.destroy();
}

// ---- control: one JSON object a line on stdin, one answer a line on stdout

function hubOf(name) {
  const hub = hubs.get(String(name).toLowerCase());
  if (!hub) throw new Error(`no hub ${name}`);
  return hub;
}

function partitionOf(o) {
  const p = hubOf(o.hub).partitions[Number(o.partition)];
  if (!p) throw new Error(`no partition ${o.partition} in hub ${o.hub}`);
  return p;
}

const chosen = (o) => o.partition === undefined || o.partition === '' ? hubOf(o.hub).partitions : [partitionOf(o)];

const operations = {
  create(o) {
    if (hubs.has(o.hub.toLowerCase())) throw new Error(`hub ${o.hub} exists`);
    hubs.set(o.hub.toLowerCase(), new Hub(o.hub, o.partitions, o.groups));
  },
  remove(o) {
    const hub = hubOf(o.hub);
    hubs.delete(o.hub.toLowerCase());
    for (const p of hub.partitions) for (const r of [...p.readers]) closeReader(r, notFound(o.hub));
    for (const w of hub.writers) w.close(notFound(o.hub));
  },
  grow(o) {
    const hub = hubOf(o.hub);
    while (hub.partitions.length < o.partitions) hub.partitions.push(new Partition(hub, String(hub.partitions.length)));
  },
  publish(o) {
    const key = o.key === '' ? undefined : o.key;
    publish(hubOf(o.hub), o.partition === '' ? undefined : partitionOf(o), key, o.data.map((d) => dataSection(Buffer.from(d, 'base64'))));
  },
  // fill appends n copies of some events, for load.
  fill(o) {
    const p = partitionOf(o);
    const encoded = o.data.map((d) => dataSection(Buffer.from(d, 'base64')));
    const now = Date.now();
    for (let i = 0; i < o.count; i++) p.append(encoded[i % encoded.length], undefined, now);
    for (const r of p.readers) pump(r);
  },
  events(o) {
    return partitionOf(o).events.map((e) => {
      const body = codec.decode(e.raw).body;
      const bytes = body && body.content !== undefined ? (body.multiple ? Buffer.concat(body.content) : body.content) : NO_EVENT;
      return {sequence: e.sequence, offset: e.offset, enqueued: e.enqueued, key: e.key || '', data: bytes.toString('base64')};
    });
  },
  trim(o) { partitionOf(o).trim(o.sequence); },
  disconnect(o) {
    const hub = hubOf(o.hub);
    const hit = new Set();
    for (const p of hub.partitions) for (const r of p.readers) hit.add(r.link.connection);
    if (o.writers) for (const w of hub.writers) hit.add(w.connection);
    for (const c of hit) drop(c);
    return hit.size;
  },
  silence(o) {
    let n = 0;
    for (const p of chosen(o)) for (const r of p.readers) { r.mute = true; n++; counts.silenced++; }
    return n;
  },
  throttle(o) {
    for (const p of chosen(o)) {
      p.throttled = o.on;
      if (o.on) for (const r of [...p.readers]) { counts.throttled++; closeReader(r, serverBusy); }
    }
  },
  busy(o) { hubOf(o.hub).busy = o.on; },
  lose_replies(o) { hubOf(o.hub).loseReplies = o.count; },
  refuse_tokens(o) { faults.refuse_tokens = o.on; },
  hang_management(o) { faults.hang_management = o.on; },
  readers(o) { return chosen(o).reduce((n, p) => n + p.readers.size, 0); },
  counts() { return counts; },
};

const listener = container.listen({
  host: '127.0.0.1', port: options.port || 0, max_frame_size: 1 << 20, channel_max: 65535, idle_time_out: 60000,
  receiver_options: {autoaccept: false, credit_window: 500}, sender_options: {}, session_buffer_size: {incoming: 2048, outgoing: 8192},
});
listener.on('listening', () => console.log(JSON.stringify({port: listener.address().port})));
listener.on('error', (error) => { console.error(error.message); process.exit(2); });

readline.createInterface({input: process.stdin, crlfDelay: Infinity}).on('line', (line) => {
  let o;
  try {
    o = JSON.parse(line);
    const result = operations[o.op](o);
    console.log(JSON.stringify({id: o.id, result: result === undefined ? null : result}));
  } catch (error) {
    console.log(JSON.stringify({id: o && o.id, error: error.message}));
  }
}).on('close', () => process.exit(0)); // whoever started this is gone
